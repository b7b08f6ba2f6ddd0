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
    with pytest.raises(aiaas.UnsupportedOperationError, match="generate isn't available for scripted:"):
        load(script.address).generate("hello")
