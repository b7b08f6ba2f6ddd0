"""Our client against the real llama.cpp, behind the server of llama-cpp-python, with a real small model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas
from aiaas_sdk.testing.processes import free_port
from tests.peers import running, weights

# the first run compiles it, some minutes
pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(900)]

QUESTION = "What is the capital of France?"
EXACT: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12}
CONTEXT = 512


class Point(BaseModel):
    x: int
    y: int


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture(scope="module")
def llama(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with SmolLM2, under the name `small`, that may call tools."""
    python, folder, port = peer_python("llamacpp"), tmp_path_factory.mktemp("llama"), free_port()
    [model] = weights("smollm2").glob("*.gguf")
    options = {"model": model, "model_alias": "small", "chat_format": "chatml-function-calling"}
    options |= {
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": CONTEXT,
        "n_threads": 1,
    }  # several wait for each other spinning
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with running([str(python), "-m", "llama_cpp.server", *words], port, folder) as base:
        yield base


@pytest.fixture
def small(llama: str, load: Any) -> Iterator[Any]:
    with load(f"{llama}#small", timeout=60, retry=None) as model:
        yield model


def test_it_is_known_and_finds_its_one_model_by_itself(llama: str, load: Any) -> None:
    with load(llama, timeout=60) as model:
        assert model.ready()
        assert (model.info().name, model.info().platform) == ("small", "llama-cpp-python")


def test_it_answers_and_counts(small: Any) -> None:
    answer = small.generate(QUESTION, **EXACT)
    assert (answer.text, answer.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (16, 7)
    cut = small.generate(QUESTION, temperature=0.0, max_tokens=3)
    assert (cut.text, cut.finish_reason) == ("The capital of", "length")


def test_a_stream_gives_what_the_whole_would_and_counts_nothing(small: Any) -> None:
    with small.stream(QUESTION, **EXACT) as stream:
        texts = [delta.text for delta in stream]
        answer = stream.result()
    assert (len(texts), "".join(texts)) == (7, "The capital of France is Paris.")
    assert (answer.text, answer.finish_reason) == (stream.text, "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (None, None)


def test_options_of_sampling_are_kept(small: Any) -> None:
    assert small.generate(QUESTION, temperature=0.0, stop=[" France"]).text == "The capital of"
    assert small.generate(QUESTION, max_tokens=8, temperature=1.5, top_k=1, seed=4).text.startswith("The capital")
    assert small.generate(QUESTION, max_tokens=8, temperature=1.5, top_p=0.9, seed=4).usage.output_tokens <= 8
    [first, *_] = small.generate(QUESTION, logprobs=2, **EXACT).logprobs
    assert (first["token"], len(first["top_logprobs"])) == ("The", 2)
    assert first["logprob"] == first["top_logprobs"][0]["logprob"] < 0
    with pytest.raises(aiaas.UnsupportedOperationError, match="'n'"):
        small.generate(QUESTION, n=2, **EXACT)


def test_the_model_is_held_to_a_schema(small: Any) -> None:
    assert isinstance(small.generate("A point?", output=Point, temperature=0.0, max_tokens=40), Point)
    stream = small.stream("A point?", output=Point, temperature=0.0, max_tokens=40)
    assert Point.model_validate_json(stream.result().text)


def test_tools_are_called_and_their_answers_answered(small: Any) -> None:
    answer = small.generate("Add 1 and 2", tools=[add], temperature=0.0, max_tokens=40)
    [call] = answer.tool_calls
    assert (call.name, dict(call.arguments), answer.finish_reason) == ("add", {"a": 1, "b": 2}, "tool_calls")
    ran: list[int] = []

    def adding(a: int, b: int) -> int:
        """Adds two numbers."""
        ran.append(a + b)
        return a + b

    small.generate("Add 1 and 2", tools=[adding], rounds=1, temperature=0.0, max_tokens=40)
    assert ran == [3]


def test_it_continues_a_text(llama: str, load: Any) -> None:
    with load(f"{llama}/completions#small", timeout=60) as model:
        answer = model.generate("The capital of France is", temperature=0.0, max_tokens=2)
        streamed = model.stream("The capital of France is", temperature=0.0, max_tokens=2).result()
    assert answer.text == streamed.text == " Paris."
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)


def test_what_is_too_long_is_told_with_the_numbers(small: Any) -> None:
    with pytest.raises(aiaas.ContextLengthError, match=f"maximum context length is {CONTEXT} tokens"):
        small.generate("word " * CONTEXT)


def test_a_stream_that_fails_is_an_empty_one(small: Any) -> None:
    """It has no words for that: 200, and nothing. Then it ends the connection, some time after the stream's end."""
    with pytest.raises(aiaas.StreamInterruptedError, match="without any content"):
        small.stream("word " * CONTEXT).result()
    time.sleep(0.5)
    with pytest.raises(aiaas.StreamInterruptedError, match="without any content"):
        small.stream("Add 1 and 2", tools=[add]).result()  # it streams no calls of tools
    time.sleep(0.5)
    assert small.generate(QUESTION, **EXACT).text


def test_its_embeddings_have_to_be_switched_on(small: Any) -> None:
    with pytest.raises(aiaas.ModelError, match="embedding=True") as caught:
        small.embed("x")
    assert caught.value.status == 500


def test_who_leaves_a_stream_ends_its_work(small: Any) -> None:
    with small.stream("Tell me a long story.", max_tokens=450, temperature=0.0) as stream:
        assert next(stream).text
    begun = time.monotonic()
    assert small.generate(QUESTION, **EXACT).finish_reason == "stop"
    assert time.monotonic() - begun < 20
