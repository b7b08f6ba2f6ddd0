"""The real models of scripts/models.sh, against what others computed with the same weights (tests/data)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.tokenizing import FileTokenizer
from aiaas_sdk.records.chat import Chat

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(600)]

DATA = Path(__file__).parent.parent / "data"
Load = Any


@pytest.fixture(scope="module")
def smollm2() -> dict[str, Any]:
    return json.loads((DATA / "smollm2.json").read_text())


@pytest.fixture(scope="module")
def minilm() -> dict[str, Any]:
    return json.loads((DATA / "minilm.json").read_text())


def test_the_decoder_gives_the_reference_s_logits(real: Callable[[str], str], smollm2: dict[str, Any]) -> None:
    with aiaas.load(real("smollm2")) as model:
        for place, ids in enumerate(smollm2["ids"]):
            logits = model.predict(np.array([ids]))["logits"][0, -1].astype(np.float64)
            top = np.array(smollm2["top_ids"][place])
            assert np.argsort(-logits)[: len(top)].tolist() == top.tolist()
            assert np.abs(logits[top] - smollm2["top_logits"][place]).max() < smollm2["tolerance"]
            assert abs(np.log(np.exp(logits).sum()) - smollm2["logsumexp"][place]) < smollm2["tolerance"]


def test_it_says_what_the_reference_says_token_for_token(
    load: Load, real: Callable[[str], str], smollm2: dict[str, Any]
) -> None:
    """The conversation as messages; its tokens by their log-probabilities' bytes."""
    with load(real("smollm2")) as model:
        answer = model.generate("What is the capital of France?", logprobs=0)
        streamed = "".join(piece.text for piece in model.stream("What is the capital of France?"))
    assert answer.text == streamed == smollm2["texts"][0]
    assert answer.finish_reason == "stop"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (37, len(smollm2["tokens"][0]))
    words = _words(real("smollm2")).spelling()
    assert [bytes(e["bytes"]) for e in answer.logprobs] == [words[token] for token in smollm2["tokens"][0][:-1]]


def test_conversations_and_texts_together_are_as_they_are_alone(
    real: Callable[[str], str], smollm2: dict[str, Any]
) -> None:
    """A conversation and a text to complete, of 37 and 4 tokens, advance in one batch with two more."""
    with aiaas.load(real("smollm2")) as model:
        model.info()
        speaker = model._engine.backend._speaker
        chats = [
            Chat((aiaas.Message("user", "What is the capital of France?"),), sampling={"max_tokens": 32}),
            Chat((), "Once upon a time", {"max_tokens": 32}),
            Chat((), "The", {"max_tokens": 20, "temperature": 1.0, "seed": 1}),
            Chat((aiaas.Message("user", "Hello"),), sampling={"max_tokens": 20}),
        ]
        jobs = [speaker._engine.submit(speaker.ask(chat, streaming=False)) for chat in chats]
        together = [job.next().result(300) for job in jobs]
        assert [job.answers[0].drawn for job in jobs[:2]] == smollm2["tokens"]
        assert [spoken.choices[0].text for spoken in together[:2]] == smollm2["texts"]
        alone = speaker._engine.submit(speaker.ask(chats[2], streaming=False))
        assert alone.next().result(300).choices[0].text == together[2].choices[0].text


def test_it_reads_the_reference_s_tokens(real: Callable[[str], str], smollm2: dict[str, Any]) -> None:
    words = _words(real("smollm2"))
    assert [words.encode(text, whole=True) for text in smollm2["prompts"]] == smollm2["ids"]


def test_embeddings_are_the_reference_s(load: Load, real: Callable[[str], str], minilm: dict[str, Any]) -> None:
    with load(real("minilm")) as model:
        found = model.embed(minilm["texts"])
        assert found.array.dtype == np.float32
        assert np.abs(found.array - np.array(minilm["embedding"])).max() < minilm["tolerance"]
        assert found.usage.input_tokens == sum(id != 0 for row in minilm["ids"] for id in row)
        long = model.embed(["word " * 1000, *minilm["texts"][:1]])
        assert long.usage.input_tokens == 256 + sum(id != 0 for id in minilm["ids"][0])
        assert np.abs(long.array[1] - found.array[0]).max() < minilm["tolerance"]


def test_the_encoder_predicts_too(real: Callable[[str], str], minilm: dict[str, Any]) -> None:
    ids = np.array(minilm["ids"])
    with aiaas.load(real("minilm")) as model:
        found = model.predict({"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)})
    assert np.abs(found["embedding"] - np.array(minilm["embedding"])).max() < minilm["tolerance"]


def _words(address: str) -> FileTokenizer:
    path = Path(address.removeprefix("torch:")) / "1" / "tokenizer.json"
    return FileTokenizer(path.read_bytes(), str(path))
