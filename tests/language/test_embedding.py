"""Texts as vectors, by a small encoder made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch import embedding
from aiaas_sdk.errors import InputError, UnsupportedOperationError

Load = Any
TEXTS = ["short", "", "a text that is longer than the others by some words", "é", "short"]


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    config = {"kind": "encoder", "width": 32, "layers": 2, "heads": 4, "context": 24}
    address = f"torch:{tmp_path / 'encoder'}"
    with aiaas.create(address, architecture="transformer", config=config, tokenizer="bytes", seed=1) as model:
        assert model.info().verbs >= {"predict", "embed", "explain"}
    return address


def test_each_text_as_alone_in_order_and_of_length_one(
    load: Load, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "TOKENS", 40)  # several batches
    with load(encoder) as model:
        found = model.embed([text for text in TEXTS if text])
        alone = [model.embed(text).array[0] for text in TEXTS if text]
    assert found.array.dtype == np.float32
    assert found.array.shape == (4, 32)
    assert np.allclose(found.array, alone, atol=1e-6)
    assert np.allclose(np.linalg.norm(found.array, axis=1), 1, atol=1e-6)
    assert np.array_equal(found.array[0], found.array[3])
    assert found.usage.input_tokens == 5 + 24 + 2 + 5
    assert found.usage.rows == 4


def test_they_are_what_predict_gives(load: Load, encoder: str) -> None:
    ids = np.array([list(b"short")])
    with load(encoder) as model:
        predicted = model.predict({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert np.allclose(model.embed("short").array, predicted["embedding"], atol=1e-6)


def test_a_longer_text_is_cut(load: Load, encoder: str) -> None:
    with load(encoder) as model:
        assert np.array_equal(model.embed("x" * 500).array, model.embed("x" * 24).array)


def test_a_text_without_tokens_is_a_vector_all_the_same(load: Load, encoder: str) -> None:
    with load(encoder) as model:
        found = model.embed(["", "a"])
    assert np.isfinite(found.array).all()


def test_what_it_cannot(load: Load, encoder: str) -> None:
    with load(encoder) as model:
        assert model.embed("a", dimensions=32).array.shape == (1, 32)
        with pytest.raises(UnsupportedOperationError, match="32 dimensions, and mean nothing cut to 8"):
            model.embed("a", dimensions=8)
        with pytest.raises(InputError, match="no text"):
            model.embed([])
        with pytest.raises(UnsupportedOperationError, match="generate isn't available"):
            model.generate("a")
        with pytest.raises(UnsupportedOperationError, match="stream isn't available"):
            next(iter(model.stream("a")))
