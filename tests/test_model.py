"""One suite over both faces: each verb of `Model`, and the same one awaited."""

from __future__ import annotations

import gc
import inspect
import pickle
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.records.options import UNSET
from tests.stopwatch import Stopwatch

SIGNATURE = "echo:?x=FP32[-1,3]"


def test_predict_gives_the_outputs_and_who_answered(load: Any) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    pred = load(SIGNATURE).predict(x)
    assert np.array_equal(pred["x"], x)
    assert np.array_equal(pred.array, x)
    assert (pred.model, pred.version, pred.backend, pred.attempts) == ("echo", "1", "echo", 0)
    assert pred.usage.rows == 2
    assert pred.timing.total >= pred.timing.compute >= 0


def test_a_prediction_survives_pickle(load: Any) -> None:
    pred = load(SIGNATURE).predict(np.ones((1, 3), np.float32))
    again = pickle.loads(pickle.dumps(pred))
    assert np.array_equal(again["x"], pred["x"])
    assert (again.model, again.timing) == (pred.model, pred.timing)


def test_top_is_best_first(load: Any) -> None:
    pred = load(SIGNATURE).predict(np.array([[0.0, 2.0, 1.0]], np.float32))
    [[first, second]] = pred.top(2)
    assert (first[0], second[0]) == ("1", "2")
    assert first[1] == pytest.approx(np.exp(2) / np.exp([0, 2, 1]).sum())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((2, 3)), "float64"),
        (np.zeros((2, 4), np.float32), "x"),
        (np.zeros(3, np.float32), "x"),
        ({"y": np.zeros((2, 3), np.float32)}, "unknown input 'y'"),
        ({}, "input 'x' is missing"),
        (np.zeros((2, 3), object), "object"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(load: Any, inputs: Any, words: str) -> None:
    model = load(SIGNATURE)
    with pytest.raises(aiaas.InputError, match=words):
        model.predict(inputs)
    assert model.stats().failures == 1


@pytest.mark.parametrize(
    "x",
    [
        np.ones((4, 6), np.float32)[::2, ::2],
        np.ones((2, 3), np.float32)[::-1],
        np.zeros((0, 3), np.float32),
        np.ones((2, 3), ">f4"),
        np.array([[np.nan, np.inf, 0]], np.float32),
        [[1, 2, 3]],
    ],
)
def test_odd_arrays_are_taken_right(load: Any, x: Any) -> None:
    assert np.array_equal(load(SIGNATURE).predict(x).array, np.asarray(x, np.float32), equal_nan=True)


def test_torch_in_gives_torch_out_without_a_copy(load: Any) -> None:
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 3, requires_grad=True)
    answer = load(SIGNATURE).predict(x).array
    assert answer.data_ptr() == x.data_ptr()
    assert not answer.requires_grad


@pytest.mark.parametrize("verb", ["explain", "fit"])
def test_a_verb_that_is_not_there_says_so(load: Any, verb: str) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match=rf"{verb} isn't available for echo:.*It can .*predict"):
        getattr(load("echo:"), verb)("text")


def test_what_it_can_instead_is_what_its_info_says(load: Any) -> None:
    model = load(SIGNATURE)
    verbs = model.info().verbs
    assert "explain" in verbs  # which its signature decides, and not its backend
    with pytest.raises(aiaas.UnsupportedOperationError, match=f"It can {', '.join(sorted(verbs))}$"):
        model.fit("x", "y")


def test_info_says_what_it_takes(load: Any) -> None:
    info = load(SIGNATURE).info()
    assert info.inputs == (aiaas.TensorSpec("x", "FP32", (-1, 3)),)
    assert "predict" in info.verbs
    assert "explain" in info.verbs
    assert "fit" not in info.verbs


def test_a_closed_model_says_so_and_its_view_lives_on(load: Any) -> None:
    model = load(SIGNATURE)
    view = model.with_options(timeout=5)
    model.close()
    model.close()
    with pytest.raises(aiaas.ClosedError):
        model.predict(np.ones((1, 3), np.float32))
    assert view.predict(np.ones((1, 3), np.float32)).usage.rows == 1


def test_a_view_of_a_dropped_model_works() -> None:
    view = aiaas.load(SIGNATURE).with_options(timeout=5)
    gc.collect()
    assert view.ready()


def test_with_a_deadline_the_answer_is_the_same(load: Any) -> None:
    model = load(SIGNATURE, timeout=5)
    assert model.predict(np.ones((1, 3), np.float32)).array.sum() == 3
    with pytest.raises(aiaas.ConfigError, match="timeout is 0"):
        model.predict(np.ones((1, 3), np.float32), timeout=0)


def test_an_output_that_is_not_there_is_told_with_those_that_are() -> None:
    with aiaas.load(SIGNATURE) as model:
        answer = model.predict(np.ones((1, 3), np.float32))
    with pytest.raises(KeyError, match="no output 'logits'; echo gave x"):
        answer["logits"]
    assert answer.get("logits") is None
    assert "logits" not in answer


def test_a_typo_in_an_option_is_named() -> None:
    with pytest.raises(aiaas.ConfigError, match=r"unknown option 'timout'.*'timeout'"):
        aiaas.load("echo:", timout=1)  # type: ignore[call-arg]


def test_an_unknown_scheme_says_what_to_install() -> None:
    for wrong, meant in (("pytorch:models/x", "torch"), ("htps://host/v2/models/x", "https")):
        with pytest.raises(aiaas.BackendNotInstalledError, match=f"Did you mean {meant}:"):
            aiaas.load(wrong)
    for nothing in (None, 3, b"echo:"):
        with pytest.raises(aiaas.AddressError, match="the address is a"):
            aiaas.load(nothing)  # type: ignore[call-overload]
    with pytest.raises(aiaas.BackendNotInstalledError, match=r"'nosuch'.*often called aiaas-nosuch"):
        aiaas.load("nosuch:thing")


def test_the_two_faces_have_the_same_names() -> None:
    def names(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert names(aiaas.AsyncModel) == {"aclose" if name == "close" else name for name in names(aiaas.Model)}
    for name in names(aiaas.Model) - {"close"}:
        plain, awaited = (inspect.signature(getattr(cls, name)) for cls in (aiaas.Model, aiaas.AsyncModel))
        assert list(plain.parameters) == list(awaited.parameters), name
        assert [p.default for p in plain.parameters.values()] == [p.default for p in awaited.parameters.values()]
    assert inspect.signature(aiaas.Model.predict).parameters["timeout"].default is UNSET


def test_wait_ready_waits_for_a_server_that_is_still_to_come(load: Any) -> None:
    from aiaas_sdk.server import serve_in_thread

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stop = threading.Event()

    def later() -> None:
        time.sleep(0.5)
        with serve_in_thread(["one=echo:?x=FP32[-1]"], port=port):
            stop.wait(30)

    server = threading.Thread(target=later)
    server.start()
    try:
        model = load(f"http://127.0.0.1:{port}/v2/models/one")
        model.wait_ready(20)
        assert model.predict([1.0]).array.tolist() == [1.0]
        model.close()
    finally:
        stop.set()
        server.join(20)


def test_wait_ready_ends_on_time_and_says_why(load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = load(f"http://127.0.0.1:{silent.getsockname()[1]}/v2/models/one")
        watch = Stopwatch()
        with pytest.raises(aiaas.ModelNotReadyError, match=r"wasn't ready after 0\.5 s") as caught:
            model.wait_ready(0.5)
        assert watch.took() < 1
        assert isinstance(caught.value.__cause__, aiaas.DeadlineExceededError)
        model.close()
