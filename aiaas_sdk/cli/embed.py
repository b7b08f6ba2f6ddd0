"""`aiaas embed`: texts as vectors, on the terminal or in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiaas_sdk.cli import writing
from aiaas_sdk.cli.printing import table
from aiaas_sdk.errors import InputError
from aiaas_sdk.records.language import Embeddings

__all__ = ["NAME", "shown", "texts_of", "told", "write"]

NAME = "embeddings"
"""The array's name in files that have names."""
_FIRST = 4  # numbers of a vector, and
_WIDE = 40  # characters of a text, that a table shows


def texts_of(given: Sequence[str]) -> list[str]:
    """The texts; a lone "-" stands for the lines of stdin."""
    if list(given) != ["-"]:
        return list(given)
    try:
        lines = sys.stdin.read().split("\n")
    except UnicodeDecodeError:
        raise InputError("stdin isn't text in UTF-8") from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError("stdin holds no text", hint="Give one a line")
    return [line.removesuffix("\r") for line in lines]


def write(found: Embeddings, path: Path) -> None:
    """The vectors as a file: the matrix alone in .npy, under its name in .npz and .json, a line each in .csv."""
    writing.write({NAME: found.array}, path)


def shown(texts: Sequence[str], found: Embeddings) -> str:
    """A table: each text, and how its vector begins."""
    size = found.array.shape[1]
    more = " ..." if size > _FIRST else ""
    rows = [
        (_short(text), size, " ".join(f"{number:.4f}" for number in vector[:_FIRST]) + more)
        for text, vector in zip(texts, found.array, strict=True)
    ]
    return table([("text", "dimensions", "vector"), *rows])


def told(found: Embeddings, output: Path | None) -> dict[str, Any]:
    """The vectors and who made them as plain values; not the vectors where a file has them."""
    return {
        "model": found.model,
        "version": found.version,
        "backend": found.backend,
        "dimensions": int(found.array.shape[1]),
        "input_tokens": found.usage.input_tokens,
        NAME: None if output is not None else found.array.tolist(),
        "output": None if output is None else str(output),
    }


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."
