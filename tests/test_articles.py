"""Messages say "an int" and "a list", whatever word comes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from aiaas_sdk.articles import kind_of, with_article

ROOT = Path(__file__).parent.parent
KNOWN = {
    "an": "int int64 INT64 AiaasModel object ndarray EchoBackend encoder image/png Unpickler FP32 MLP SGDTrainer",
    "a": "str list NoneType float torch.int64 uint8 UINT8 UUID UNet union OneHot BYTES Sequential Flower Ridge hat",
}


@pytest.mark.parametrize(("article", "noun"), [(article, noun) for article in KNOWN for noun in KNOWN[article].split()])
def test_the_article_is_the_one_that_is_spoken(article: str, noun: str) -> None:
    assert with_article(noun) == f"{article} {noun}"


def test_a_value_is_told_by_its_class() -> None:
    assert [kind_of(value) for value in (3, "x", None, np.zeros(1))] == ["an int", "a str", "a NoneType", "an ndarray"]


def test_no_message_has_an_article_before_a_type_that_it_doesnt_know() -> None:
    files = [*(ROOT / "aiaas_sdk").rglob("*.py"), *ROOT.glob("plugins/*/aiaas_*/**/*.py")]
    assert len(files) > 100
    guessed = re.compile(r"\ba \{[^{}]*(?:__name__|dtype|datatype|media_type)[^{}]*\}")
    assert [f"{file}: {found[0]}" for file in files if (found := guessed.search(file.read_text("utf-8")))] == []
