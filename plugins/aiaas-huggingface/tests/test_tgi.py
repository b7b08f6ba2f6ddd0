"""`generate` and `stream` before what answers as text-generation-inference does."""

from __future__ import annotations

from typing import Any

import pytest

import aiaas_sdk as aiaas

PROMPT = "one two three four"


@pytest.fixture
def model(load: Any, stand_in: str) -> Any:
    with load(f"{stand_in}/tgi", timeout=20) as model:
        yield model


def test_the_model_is_described(model: Any) -> None:
    info = model.info()
    assert (info.name, info.platform) == ("bigscience/bloom-560m", "text-generation-inference")
    assert info.version == "e985a63cdc139290c5f700ff1929f0b5942cced2"
    assert info.verbs == {"generate", "stream"}
    assert info.metadata["max_total_tokens"] == 512
    assert model.ready()


def test_an_answer(model: Any) -> None:
    answer = model.generate(PROMPT)
    assert (answer.text, answer.finish_reason, answer.backend) == (" one two three four", "stop", "huggingface")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 5)
    assert (answer.timing.queue, answer.timing.compute) == (0.002, 0.04)


def test_a_stream_is_what_generate_says(model: Any) -> None:
    for options in ({}, {"max_tokens": 2}, {"stop": "two"}, {"stop": ["x", "ee f"]}, {"seed": 3, "temperature": 0.7}):
        whole = model.generate(PROMPT, **options)
        with model.stream(PROMPT, **options) as stream:
            pieces = [delta.text for delta in stream]
            said = stream.result()
        assert "".join(pieces) == said.text == whole.text
        assert said.finish_reason == whole.finish_reason
        assert said.usage.output_tokens == whole.usage.output_tokens
        assert said.usage.input_tokens == 4


@pytest.mark.parametrize(("stop", "text"), [("two", " one "), ("o t", " one tw"), (["four", "three"], " one two ")])
def test_a_stop_is_not_shown(model: Any, stop: Any, text: str) -> None:
    answer = model.generate("one two three" if stop == "o t" else PROMPT, stop=stop)
    assert answer.text == text
    assert answer.finish_reason == "stop"


def test_what_becomes_no_stop_is_shown(model: Any) -> None:
    with model.stream(PROMPT, stop=["four five"]) as stream:
        assert "".join(delta.text for delta in stream) == " one two three four"


def test_temperatures_that_tgi_has_not_got(model: Any) -> None:
    # it refuses 0, and a top_p of 1
    assert model.generate(PROMPT, temperature=0, top_p=0.5, top_k=3).text == " one two three four"
    drawn = model.generate(PROMPT, temperature=1.0, top_p=1.0, seed=5).text
    assert drawn == model.generate(PROMPT, temperature=1.0, top_p=1.0, seed=5).text
    assert drawn != " one two three four"


def test_logprobs(model: Any) -> None:
    answer = model.generate("one two", logprobs=2)
    with model.stream("one two", logprobs=2) as stream:
        assert stream.result().logprobs == answer.logprobs
    assert [entry["token"] for entry in answer.logprobs] == [" one", " two"]
    assert answer.logprobs[1]["logprob"] == -0.5
    assert [other["token"] for other in answer.logprobs[0]["top_logprobs"]] == [" one", " one1"]
    assert model.generate("one two").logprobs is None


def test_a_text_that_is_too_long(model: Any) -> None:
    with pytest.raises(aiaas.ContextLengthError, match="must be <= 512") as caught:
        model.generate("word " * 500)
    assert caught.value.status == 422
    with pytest.raises(aiaas.ContextLengthError), model.stream("word " * 500) as stream:
        stream.result()


def test_a_request_that_is_wrong(model: Any) -> None:
    with pytest.raises(aiaas.InvalidRequestError, match="up to 4 stop sequences"):
        model.generate(PROMPT, stop=list("abcde"))


def test_a_model_that_fails(model: Any) -> None:
    with pytest.raises(aiaas.ModelError, match="CUDA") as caught:
        model.generate("fail")
    assert caught.value.attempts == 1


@pytest.mark.parametrize(
    ("prompt", "partial", "words"),
    [("one overload two", " one", "overloaded"), ("one two vanish three", " one two", "ended before its end")],
)
def test_a_stream_that_breaks(model: Any, prompt: str, partial: str, words: str) -> None:
    with pytest.raises(aiaas.StreamInterruptedError, match=words) as caught, model.stream(prompt) as stream:
        stream.result()
    assert caught.value.partial == partial


def test_a_stream_that_is_refused_before_it_begins_is_asked_for_again(model: Any) -> None:
    hasty = model.with_options(retry=aiaas.Retry(attempts=4, wait=0.01))
    with pytest.raises(aiaas.RateLimitedError) as caught, hasty.stream("overload") as stream:
        stream.result()
    assert caught.value.attempts == 4


def test_what_it_cannot_do(model: Any) -> None:
    for ask in (
        lambda: model.generate([{"role": "user", "content": "Hello"}]),
        lambda: model.generate(PROMPT, n=2),
        lambda: model.embed("text"),
        lambda: model.predict([1.0]),
    ):
        with pytest.raises(aiaas.UnsupportedOperationError):
            ask()
    with pytest.raises(aiaas.UnsupportedOperationError, match=r"openai\+https"):
        model.generate([{"role": "user", "content": "Hello"}])
