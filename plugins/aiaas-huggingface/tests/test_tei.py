"""`embed` and `predict` before what answers as text-embeddings-inference does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

TEXTS = [f"{word} cab" for word in ("a", "bad", "deaf", "feed", "gag", "hedge")]


def test_vectors(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/embedder", timeout=20) as model:
        info = model.info()
        assert (info.name, info.platform, info.verbs) == ("thenlper/gte-base", "text-embeddings-inference", {"embed"})
        assert info.metadata["pooling"] == "cls"
        found = model.embed(TEXTS)
        assert found.array.shape == (6, 8)
        assert found.array.dtype == np.float32
        # six texts and a limit of four: two requests
        assert found.attempts == 2
        assert found.usage.input_tokens == 6 * 4
        for text, vector in zip(TEXTS, found.array, strict=True):
            assert vector.tolist() == model.embed(text).array[0].tolist()
        assert model.embed(TEXTS, dimensions=3).array.tolist() == found.array[:, :3].tolist()


def test_dimensions_that_are_not_there(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/embedder") as model, pytest.raises(aiaas.UnsupportedOperationError, match="8 dimensions"):
        model.embed(TEXTS, dimensions=9)


def test_a_text_that_is_too_long(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/embedder") as model, pytest.raises(aiaas.ContextLengthError, match="less than 16 tokens"):
        model.embed("word " * 17)


def test_a_model_that_fails(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/embedder") as model, pytest.raises(aiaas.ModelError, match="CUDA"):
        model.embed("fail")


def test_classes(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/classifier", timeout=20) as model:
        assert model.info().labels == ("sadness", "joy", "fear")
        found = model.predict([*TEXTS, "jjj"])
        assert found["probabilities"].shape == (7, 3)
        assert found.attempts == 2
        # in the order of the labels, though they come best first
        assert found["probabilities"][6].tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=1e-6)
        assert found.top(1)[6] == [("joy", pytest.approx(4 / 6, abs=1e-6))]
        assert model.predict({"text": np.empty(0, object)})["probabilities"].shape == (0, 3)
        assert [row["probabilities"].argmax() for row in model.map(["sss", "jjj", "fff"])] == [0, 1, 2]


def test_ranks(load: Any, stand_in: str) -> None:
    queries = ["red fox", "blue sky", "red fox"]
    texts = ["a sky", "a blue sky", "the red fox"]
    with load(f"{stand_in}/reranker", timeout=20) as model:
        found = model.predict({"query": queries, "text": texts})
        # a request for each query
        assert found.attempts == 2
        assert found["score"].tolist() == pytest.approx([0, 2 / 11, 2 / 12])
        many = model.predict({"query": ["red"] * 6, "text": ["red" if n == 4 else "sky" for n in range(6)]})
        assert many["score"].argmax() == 4


def test_texts_that_are_none(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/classifier") as model, pytest.raises(aiaas.InputError, match="UTF-8"):
        model.predict([b"\xff"])


def test_a_kind_of_model_that_is_not_known(load: Any, stand_in: str) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="sparse"), load(f"{stand_in}/newer") as model:
        model.info()
