"""The article before a word that is known only when a message is made: "an int", "a list", "an ndarray"."""

from __future__ import annotations

import re

__all__ = ["kind_of", "with_article"]

_AN = (
    r"[aei]|o(?!ne)|u(?:[lmp]|n(?!i|et))"  # "a one", "a union" and "a UINT8" begin with consonants
    r"|[fhlmnrx](?![aeiouy]|(?<=f)[lr]|(?<=r)h)|s(?=[bdfgjrsvxz\d])"  # spelled out: an ndarray, an FP32, an HTTPError
)


def with_article(noun: str) -> str:
    """The noun after "a" or "an", as it is spoken."""
    return f"{'an' if re.match(_AN, noun.lstrip('_'), re.IGNORECASE) else 'a'} {noun}"


def kind_of(value: object) -> str:
    """What a value is, and nothing of its contents: its class after an article."""
    return with_article(type(value).__name__)
