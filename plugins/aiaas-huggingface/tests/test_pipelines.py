"""Task JSON: addresses that name a task, and transformers' real pipelines."""

from __future__ import annotations

from typing import Any

import pytest

import aiaas_sdk as aiaas


def test_an_endpoint_that_does_not_tell(load: Any, stand_in: str) -> None:
    with pytest.raises(aiaas.ConfigError, match="/pipeline/TASK"), load(f"{stand_in}/other") as model:
        model.info()


def test_nobody_there(load: Any, stand_in: str) -> None:
    with pytest.raises(aiaas.ModelNotFoundError, match="Is the path right"), load(f"{stand_in}/nothing") as model:
        model.info()


@pytest.mark.parametrize("address", ["huggingface+http://h/pipeline/cooking", "huggingface+http://h/x@3"])
def test_addresses_that_are_wrong(load: Any, address: str) -> None:
    with pytest.raises(aiaas.AddressError, match=r"cooking|version"):
        load(address)


def test_a_model_that_is_loading_says_for_how_long(load: Any, stand_in: str) -> None:
    with pytest.raises(aiaas.UnavailableError) as caught, load(f"{stand_in}/loading", retry=None) as model:
        model.info()
    assert caught.value.retry_after == 0.2


@pytest.mark.parametrize("path", ["/sentences", "/hf-inference/models/org/name"])
def test_sentence_transformers(load: Any, stand_in: str, path: str) -> None:
    with load(f"{stand_in}{path}/pipeline/sentence-embeddings", timeout=20) as model:
        assert model.info().verbs == {"embed"}
        assert model.info().name == ("org/name" if "models" in path else "sentences")
        found = model.embed(["aab", "b"]).array
        assert found.shape == (2, 8)
        assert found[0, :2].tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
        with pytest.raises(aiaas.UnsupportedOperationError):
            model.embed("a", dimensions=2)


def test_a_cross_encoder(load: Any, stand_in: str) -> None:
    with load(f"{stand_in}/sentences/pipeline/sentence-ranking", timeout=20) as model:
        assert model.predict({"query": ["q", "q"], "text": ["abc", "d"]})["score"].tolist() == [3, 1]


@pytest.mark.peer
@pytest.mark.slow
def test_a_real_pipeline_classifies(load: Any, pipelines: str) -> None:
    with load(f"{pipelines}/text-classification/pipeline/text-classification", timeout=30) as model:
        found = model.predict(["a cat", "dogs bark!", "rain"])
        assert found["label"].shape == found["score"].shape == (3, 3)
        assert {*found["label"][0]} == {b"bad", b"fair", b"good"}
        assert found["score"].sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        assert (found["score"][:, :-1] >= found["score"][:, 1:]).all()
        alone = model.predict(["rain"])
        assert alone["score"][0].tolist() == pytest.approx(found["score"][2].tolist(), abs=1e-5)
        assert set(model.predict(["rain"], outputs=["label"])) == {"label"}


@pytest.mark.peer
@pytest.mark.slow
def test_a_real_pipeline_writes(load: Any, pipelines: str) -> None:
    with load(f"{pipelines}/text-generation/pipeline/text-generation", timeout=30) as model:
        answer = model.generate("Once upon", max_tokens=5, temperature=0)
        assert answer.text
        assert not answer.text.startswith("Once upon")
        assert answer.text == model.generate("Once upon", max_tokens=5, temperature=0).text
        assert answer.finish_reason == "unknown"
        assert answer.usage.output_tokens is None
        with pytest.raises(aiaas.UnsupportedOperationError, match="'seed'"):
            model.generate("Once upon", seed=1)


@pytest.mark.peer
@pytest.mark.slow
def test_a_real_pipeline_of_tokens_vectors_is_told(load: Any, pipelines: str) -> None:
    address = f"{pipelines}/feature-extraction/pipeline/feature-extraction"
    unsupported = pytest.raises(aiaas.UnsupportedOperationError, match="vector for each token")
    with load(address, timeout=30) as model, unsupported:
        model.embed(["a cat", "rain falls"])


@pytest.mark.peer
@pytest.mark.slow
def test_the_wrong_task_is_told(load: Any, pipelines: str) -> None:
    address = f"{pipelines}/text-classification/pipeline/summarization"
    told = pytest.raises(aiaas.AiaasError, match=r"is the endpoint one of summarization|unexpected")
    with load(address, timeout=30) as model, told:
        model.generate("text")
