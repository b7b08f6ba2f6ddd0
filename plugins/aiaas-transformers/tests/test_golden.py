"""The real models of scripts/models.sh, against what others computed with the same weights (tests/data)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from tests.peers import weights

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(600)]
DATA = Path(__file__).parents[3] / "tests" / "data"


def golden(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


def test_smollm2_says_the_reference_s_words_token_for_token() -> None:
    pytest.importorskip("accelerate", reason="GGUF files need it")
    right = golden("smollm2")
    path = next(weights("smollm2").glob("*.gguf"))
    with aiaas.load(f"hf:{path}") as model:
        assert model.info().platform == "transformers_gguf"
        answer = model.generate("What is the capital of France?", logprobs=0)
        with model.stream("What is the capital of France?") as stream:
            pieces = [delta.text for delta in stream]
            whole = stream.result()
    assert answer.text == "".join(pieces) == right["texts"][0]
    assert answer.finish_reason == whole.finish_reason == "stop"
    for one in (answer, whole):
        assert (one.usage.input_tokens, one.usage.output_tokens) == (37, len(right["tokens"][0]))
    assert "".join(entry["token"] for entry in answer.logprobs) == answer.text
    assert len(answer.logprobs) == len(right["tokens"][0]) - 1  # all but the end
    assert pieces == [entry["token"] for entry in answer.logprobs]


def test_minilm_gives_the_reference_s_vectors() -> None:
    right = golden("minilm")
    with aiaas.load(f"hf:{weights('minilm')}") as model:
        found = model.embed(right["texts"])
        assert np.abs(found.array - np.array(right["embedding"])).max() < right["tolerance"]
        assert found.usage.input_tokens == sum(id != 0 for row in right["ids"] for id in row)
        long = model.embed(["word " * 1000, *right["texts"][:1]])
        assert long.usage.input_tokens == 256 + sum(id != 0 for id in right["ids"][0])
