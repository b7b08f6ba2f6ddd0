"""The scripted model, through the same door as any other."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing import Script

X = np.ones((2, 3), np.float32)


def test_it_answers_in_order_and_notes_what_it_was_asked(load: Any) -> None:
    script = Script().answer([1.5]).answer({"a": X, "b": [b"text"]})
    with load(script.address, timeout=5) as model:
        x = X.copy()
        assert model.predict(x).array.tolist() == [1.5]
        x[:] = 0
        answer = model.predict({"u": X, "v": [1]}, outputs=["b", "a"])
    assert (list(answer), answer.backend) == (["b", "a"], "scripted")
    assert answer["b"].tolist() == [b"text"]
    first, second = script.calls
    assert first.inputs["input"].tolist() == X.tolist()  # as it was then
    assert (second.inputs["v"].tolist(), second.outputs) == ([1], ("b", "a"))
    assert (first.verb, first.chat, first.texts) == ("predict", None, ())
    assert script.left == 0


def test_a_signature_makes_it_as_strict_as_a_real_one(load: Any) -> None:
    script = Script(inputs={"x": ("FP32", (-1, 3))}, outputs={"y": ("FP32", (-1, 2))}, labels=["cat", "dog"])
    script.answer([[0.1, 0.9]]).answer(np.ones((2, 2), np.float32))
    with load(script.address) as model:
        with pytest.raises(aiaas.InputError, match="float64"):
            model.predict(np.ones((1, 3)))
        assert model.predict(X[:1]).top(1)[0][0][0] == "dog"
        assert [row["y"].tolist() for row in model.map(X)] == [[1, 1], [1, 1]]
        assert model.ready()
        assert model.info().labels == ("cat", "dog")
    assert len(script.calls) == 2  # what was refused before wasn't asked


def test_an_error_is_raised_anew_each_time(load: Any) -> None:
    error = aiaas.RateLimitedError("slow down", retry_after=2, status=429)
    script = Script().answer(error).answer(error)
    with load(script.address) as model:
        for _ in range(2):
            with pytest.raises(aiaas.RateLimitedError) as caught:
                model.predict(X)
            assert (caught.value.retry_after, caught.value.status) == (2, 429)
            assert caught.value is not error
    assert error.__traceback__ is None


def test_a_delay_takes_its_time_and_one_past_the_deadline_fails_without_waiting(load: Any) -> None:
    script = Script().answer([1.0], after=0.05).answer([1.0], after=60)
    with load(script.address, timeout=30) as model:
        begun = time.monotonic()
        model.predict(X)
        assert time.monotonic() - begun >= 0.05
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(X)
    assert time.monotonic() - begun < 20


def test_a_call_too_many_says_what_was_asked(load: Any) -> None:
    script = Script().answer([1.0])
    with load(script.address) as model:
        model.predict(X)
        with pytest.raises(aiaas.UnsupportedOperationError) as caught:
            model.predict({"x": X, "mask": np.array([True])}, outputs=["y"])
    assert f"{script.address} was given 1 answer, and call 2 came: predict of" in str(caught.value)
    assert "x FP32 [2, 3], mask BOOL [1], outputs ['y']" in str(caught.value)
    assert "script.answer" in str(caught.value)
    assert [error.message for error in script.overruns] == [caught.value.message]


def test_it_stands_in_for_a_name(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script().answer([1.0])
    monkeypatch.setenv("AIAAS_MODEL_DIGITS", script.address)
    assert load("digits").predict(X).array.tolist() == [1.0]


def test_a_script_lives_as_long_as_somebody_holds_it_or_its_model(load: Any) -> None:
    script = Script().answer([1.0])
    address = script.address
    model = load(address)
    del script
    gc.collect()
    assert model.predict(X).array.tolist() == [1.0]
    model.close()
    del model
    gc.collect()
    with pytest.raises(aiaas.AddressError, match=r"aiaas_sdk\.testing\.Script"):
        load(address)


@pytest.mark.parametrize(
    ("signature", "answer", "words"),
    [
        ({}, ValueError("no"), "no ValueError"),
        ({"y": ("FP32", (-1, 2))}, np.ones((1, 2)), "float64"),
        ({"y": ("FP32", (-1, 2))}, [[1.0]], "shape"),
        ({"y": ("FP32", (-1, 2))}, {"z": [[1.0, 2.0]]}, "no output 'z'; it has y"),
        ({"y": ("FP32", (-1,)), "z": ("FP32", (-1,))}, [1.0], "outputs y, z"),
        ({}, [1j], "complex"),
    ],
)
def test_an_answer_that_no_model_gives_is_refused_at_once(signature: Any, answer: Any, words: str) -> None:
    with pytest.raises((aiaas.ConfigError, aiaas.InputError), match=words):
        Script(outputs=signature).answer(answer)


def test_a_delay_has_to_be_one() -> None:
    with pytest.raises(aiaas.ConfigError, match="seconds"):
        Script().answer([1.0], after=-1)


def test_other_verbs_are_refused_by_name(load: Any) -> None:
    script = Script()
    with pytest.raises(aiaas.UnsupportedOperationError, match="fit isn't available for scripted:"):
        load(script.address).fit([1.0])


# ---------------------------------------------------------------- words
def test_it_speaks_in_order_and_notes_what_it_was_asked(load: Any) -> None:
    script = Script().say("Hi", reasoning="hm", input_tokens=3, output_tokens=4).stream(["Hel", "lo"]).embed([[1, 2]])
    script.say("cut", finish_reason="length")
    with load(script.address, timeout=20) as model:
        answer = model.generate([{"role": "user", "content": "hello"}], temperature=0, stop="x")
        with model.stream("say it") as stream:
            texts, whole = [delta.text for delta in stream], stream.result()
        vectors = model.embed("a", dimensions=2)
        assert model.generate("more").finish_reason == "length"
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.backend) == ("Hi", "hm", "stop", "scripted")
    assert answer.usage == aiaas.Usage(input_tokens=3, output_tokens=4)
    assert (texts, whole.text, whole.reasoning, whole.usage.output_tokens) == (["Hel", "lo"], "Hello", None, None)
    assert (vectors.array.dtype, vectors.array.tolist()) == (np.float32, [[1, 2]])
    first, second, third, _ = script.calls
    assert (first.verb, first.chat.messages[0].text, first.chat.text) == ("generate", "hello", None)
    assert first.chat.sampling == {"temperature": 0.0, "stop": ("x",)}
    assert (second.verb, second.chat.text) == ("stream", "say it")
    assert (third.verb, third.texts, third.dimensions, third.inputs) == ("embed", ("a",), 2, {})
    assert script.left == 0


def test_tools_are_asked_for_whole_and_streamed(load: Any) -> None:
    call = aiaas.ToolCall("c1", "search", {"text": "soup"})
    script = Script().say(tool_calls=[call]).say("Found.").stream(["Let me see", aiaas.Delta(tool_calls=(call,))])

    def search(text: str) -> str:
        """Look it up."""
        return f"{text}: nothing"

    with load(script.address) as model:
        assert model.generate("Find soup", tools=[search], rounds=1).text == "Found."
        with model.stream("Find soup", tools=[search]) as stream:
            assert list(stream)[1].tool_calls == (call,)
            whole = stream.result()
    assert (whole.finish_reason, whole.tool_calls, whole.text) == ("tool_calls", (call,), "Let me see")
    assert script.calls[1].chat.messages[-1].text == "soup: nothing"
    assert [tool.name for tool in script.calls[2].chat.tools] == ["search"]


def test_a_stream_ends_early_where_it_is_told_to(load: Any) -> None:
    script = Script().stream(["Once ", "upon"], then=aiaas.StreamInterruptedError("the peer hung up"))
    script.stream(["Once"], then=aiaas.ModelError("out of ink")).stream([], then=aiaas.UnavailableError("busy"))
    script.answer(aiaas.RateLimitedError("slow down")).stream([])
    with load(script.address) as model:
        for partial, words in (("Once upon", "hung up"), ("Once", "out of ink")):
            with model.stream("tell") as stream:
                with pytest.raises(aiaas.StreamInterruptedError, match=words) as caught:
                    list(stream)
                assert stream.text == caught.value.partial == partial
        for kind in (aiaas.UnavailableError, aiaas.RateLimitedError):  # nothing has come: as it is
            with pytest.raises(kind):
                model.stream("tell").result()
        assert model.stream("tell").result().text == ""


def test_an_error_answers_any_verb(load: Any) -> None:
    script = Script().answer(aiaas.RateLimitedError("slow down")).answer(aiaas.RateLimitedError("slow down"))
    with load(script.address) as model:
        for ask in (lambda: model.generate("hello"), lambda: model.embed("hello")):
            with pytest.raises(aiaas.RateLimitedError):
                ask()
    assert [call.verb for call in script.calls] == ["generate", "embed"]


def test_the_first_word_may_be_late(load: Any) -> None:
    script = Script().say("Hi", after=60).stream(["Hi"], after=60).embed([[1.0]], after=60)
    begun = time.monotonic()
    with load(script.address, timeout=30) as model:
        for ask in (lambda: model.generate("a"), lambda: model.stream("a").result(), lambda: model.embed("a")):
            with pytest.raises(aiaas.DeadlineExceededError):
                ask()
    assert time.monotonic() - begun < 20


def test_an_answer_for_another_verb_is_not_given(load: Any) -> None:
    script = Script().say("Hi")
    with load(script.address) as model:
        with pytest.raises(aiaas.UnsupportedOperationError) as caught:
            model.stream("hello hunter2").result()
        assert f"{script.address} would answer generate next, and call 1 came: stream of" in str(caught.value)
        assert "with a prompt of 13 characters" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert model.generate("hello").text == "Hi"
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"given 1 answer, and call 3 came.*script\.say\("):
            model.generate("hello")
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"call 4 came: embed of.*2 texts.*script\.embed\("):
            model.embed(["a", "b"])
    assert len(script.overruns) == 3


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda script: script.say(5), "the text is an int"),
        (lambda script: script.say(tool_calls=[{"name": "search"}]), "a tool call is a dict.*ToolCall"),
        (lambda script: script.say("a", after=-1), "seconds"),
        (lambda script: script.stream("hello"), "the pieces of a stream are one text"),
        (lambda script: script.stream(["a", 5]), "a piece of a stream is an int"),
        (lambda script: script.stream(["a"], then=ValueError("no")), "raises no ValueError"),
        (lambda script: script.embed([1.0, 2.0]), r"the shape \[2\].*one row a text"),
        (lambda script: script.embed([[1.0], [2.0, 3.0]]), "one length"),
        (lambda script: script.embed("soup"), "aren't numbers"),
    ],
)
def test_words_that_no_model_says_are_refused_at_once(add: Any, words: str) -> None:
    script = Script()
    with pytest.raises((aiaas.ConfigError, aiaas.InputError), match=words):
        add(script)
    assert script.left == 0
