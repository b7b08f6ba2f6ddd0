"""Recording and replaying the calls of both faces."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas
from aiaas_sdk import seam
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import DATATYPES, Tensor, from_bytes, to_bytes
from aiaas_sdk.testing import Script, recording
from aiaas_sdk.testing.recorder import Recorder

X = np.arange(6, dtype=np.float32).reshape(2, 3)
DOUBLE = """
from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor

class DoubleBackend(LocalBackend):
    scheme = "double"

    def open(self):
        specs = (TensorSpec("x", "FP32", (-1, 3)),)
        known = {"inputs": specs, "outputs": specs, "labels": ("a", "b", "c")}
        return ModelInfo(name="double", version="7", verbs=self.verbs(), **known)

    def predict(self, inputs, outputs):
        if inputs["x"].array[0, 0] < 0:
            raise ValueError("below zero")
        return {"x": Tensor("FP32", inputs["x"].array * 2)}

@hookimpl
def aiaas_backend(scheme):
    return DoubleBackend
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


class Plugin:
    """A backend `double:`, x -> 2 x, that can be uninstalled."""

    def __init__(self, folder: Path) -> None:
        self.info = folder / "aiaas_double-1.0.dist-info"
        self.info.mkdir(parents=True)
        (self.info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-double\nVersion: 1.0\n")
        (self.info / "entry_points.txt").write_text("[aiaas_sdk.backends]\ndouble = double_plugin\n")
        (folder / "double_plugin.py").write_text(DOUBLE)

    def uninstall(self) -> None:
        (self.info / "entry_points.txt").unlink()
        (self.info / "METADATA").unlink()
        self.info.rmdir()
        sys.modules.pop("double_plugin", None)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sys.modules.pop("double_plugin", None)
    return Plugin(tmp_path / "site")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[1:] if line]


# ---------------------------------------------------------------- the same without the model
def test_a_model_is_replayed_after_its_backend_was_uninstalled(load: Any, file: Path, double: Plugin) -> None:
    def use() -> Any:
        with load("double:d", timeout=5) as model:
            answer = model.predict(X)
            rows = [row["x"].tolist() for row in model.map(X, batch_size=1)]
            return (
                model.info(),
                answer["x"].tolist(),
                answer.backend,
                answer.version,
                answer.top(1),
                rows,
                model.ready(),
            )

    with recording(file, "record"):
        first = use()
    double.uninstall()
    with pytest.raises(aiaas.BackendNotInstalledError):
        load("double:d")
    with recording(file):
        assert use() == first
    assert first[2:4] == ("double", "7")


def test_live_neither_writes_nor_reads(load: Any, file: Path) -> None:
    with recording(file, "live"), load("echo:") as model:
        assert model.predict(X).array.tolist() == X.tolist()
    assert not file.exists()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back_bit_by_bit(load: Any, file: Path, datatype: str) -> None:
    size = DATATYPES[datatype].size
    sent = {}
    for shape in ((2, 3), (0,), (7, 40)):
        count = int(np.prod(shape))
        if datatype == "BYTES":
            elements = np.empty(count, object)
            elements[:] = [bytes([n % 256]) * (n % 5) for n in range(count)]
            sent[f"x{count}"] = Tensor("BYTES", elements.reshape(shape))
        else:
            data = bytes(count) if datatype == "BOOL" else np.random.default_rng(count).bytes(count * size)
            sent[f"x{count}"] = from_bytes(datatype, shape, data, "here")
    for mode in ("record", "replay"):
        with recording(file, mode), load("echo:") as model:
            came = model.predict(sent).tensors
        assert {name: bytes(to_bytes(t)) for name, t in came.items()} == {
            n: bytes(to_bytes(t)) for n, t in sent.items()
        }


def test_torch_goes_in_and_comes_out(load: Any, file: Path) -> None:
    torch = pytest.importorskip("torch")
    for mode in ("record", "replay"):
        with recording(file, mode), load("echo:") as model:
            came = model.predict({"x": torch.ones(2, dtype=torch.bfloat16)})["x"]
        assert came.dtype == torch.bfloat16
        assert came.tolist() == [1, 1]


class Row(BaseModel):
    x: list[float]


def test_records_and_views_are_replayed(load: Any, file: Path, double: Plugin) -> None:
    def use() -> Any:
        with load("double:d", input=Row, timeout=5) as model:
            view = model.with_options(timeout=9)
            other = model.with_options(concurrency=2)  # loads anew
            records = [Row(x=[1, 2, 3]), Row(x=[4, 5, 6])]
            found = [answer["x"].tolist() for answer in view.predict(records)]
            found += [answer["x"].tolist() for answer in other.map(records)]
            view.close()
            other.close()
            return found

    with recording(file, "record"):
        first = use()
    double.uninstall()
    with recording(file):
        assert use() == first


def test_a_served_model_is_replayed_after_the_server_stopped(load: Any, file: Path) -> None:
    def use() -> tuple[Any, ...]:
        with load(f"{url}/v2/models/e", api_key="hunter2-key", headers={"x-tenant": "acme-tenant"}) as model:
            answer = model.predict(X)
            return answer["x"].tolist(), answer.backend, answer.attempts, answer.request_id is not None

    with serve_in_thread(["e=echo:?x=FP32[-1,3]"]) as url, recording(file, "record"):
        first = use()
    with recording(file):
        assert use() == first
    assert "hunter2" not in file.read_text()
    assert "acme" not in file.read_text()
    assert first[1:] == ("oip", 1, True)


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_no_frame_shows_a_key_of_a_load_that_fails(load: Any, file: Path, mode: Any) -> None:
    with recording(file, "record"):
        aiaas.load("echo:").predict(X)
    with recording(file, mode), pytest.raises(aiaas.AddressError) as caught:
        load("https://user:pass@host/v2/models/m", api_key="hunter2-key", headers={"x-tenant": "hunter2"})
    for entry in caught.traceback:
        if "aiaas_sdk" in str(entry.path):
            assert "hunter2" not in repr(entry.frame.f_locals)


# ---------------------------------------------------------------- names and routes
def test_a_name_needs_no_settings_to_be_replayed(load: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIAAS_MODEL_DIGITS", "echo:?x=FP32[-1,3]")
    with recording(file, "record"), load("digits") as model:
        model.predict(X)
    monkeypatch.delenv("AIAAS_MODEL_DIGITS")
    with recording(file), load("digits", timeout=3) as model:
        assert model.predict(X)["x"].tolist() == X.tolist()
    assert {line["address"] for line in lines(file)} == {"digits"}


def test_settings_still_hold_where_a_call_is_replayed(load: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.predict(X)
    monkeypatch.setenv("AIAAS_TIMEOUT", "7")
    with recording(file):
        assert "timeout=7" in repr(aiaas.load("nobody-knows-it"))
        with pytest.raises(aiaas.ConfigError, match="timeot"):
            load("echo:", timeot=3)
        with pytest.raises(aiaas.AddressError):
            load("https://user:secret@host/v2/models/m")


def test_a_route_is_one_model(load: Any, file: Path) -> None:
    script = Script().answer([1.0])
    address = ["http://127.0.0.1:9/v2/models/m", script.address]
    with recording(file, "record"), load(address, retry=None) as model:
        assert model.predict(X).backend == "scripted"
    del script, model
    gc.collect()
    with recording(file), load(address, retry=None) as model:
        answer = model.predict(X)
    assert (answer.backend, answer.array.tolist()) == ("scripted", [1.0])


# ---------------------------------------------------------------- order
def test_equal_calls_are_answered_in_order_and_then_the_last_repeats(load: Any, file: Path) -> None:
    script = Script().answer([1.0]).answer([1.0]).answer(aiaas.ModelError("no")).answer([2.0])

    def ask(model: Any) -> Any:
        try:
            return model.predict(X).array.tolist()
        except aiaas.ModelError as error:
            return error.message

    with recording(file, "record"), load(script.address) as model:
        first = [ask(model) for _ in range(4)]
    with recording(file), load(script.address) as model:
        assert [ask(model) for _ in range(6)] == [*first, [2.0], [2.0]]
    with recording(file):  # the order goes on over all models of an address
        assert [ask(load(script.address)) for _ in range(4)] == first


def test_recording_again_gives_the_same_file_though_threads_take_turns(load: Any, file: Path) -> None:
    def record() -> bytes:
        with recording(file, "record"), load("echo:", concurrency=4) as model:
            list(model.map(np.arange(40, dtype=np.float32), batch_size=2, concurrency=4))
        return file.read_bytes()

    assert record() == record()
    assert len(lines(file)) == 21
    with recording(file), load("echo:") as model:
        answers = list(model.map(np.arange(40, dtype=np.float32), batch_size=2, concurrency=4))
    assert [float(answer.array) for answer in answers] == list(range(40))


def test_what_the_caller_writes_into_arrays_changes_no_recording(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        x = X.copy()
        model.predict(x)
        x[:] = -1
    with recording(file), load("echo:") as model:
        model.predict(X).array[:] = -1
        assert model.predict(X).array.tolist() == X.tolist()


# ---------------------------------------------------------------- failures
def test_an_error_is_the_same_when_it_is_replayed(load: Any, file: Path) -> None:
    error = aiaas.RateLimitedError("slow down", hint="wait", retry_after=2, status=429, request_id="7f-1")
    script = Script().answer(error)

    def fail() -> Any:
        with load(script.address, timeout=5) as model, pytest.raises(aiaas.RateLimitedError) as caught:
            model.predict(X)
        return caught.value

    with recording(file, "record"):
        first = fail()
    with recording(file):
        again = fail()
    for name in ("message", "hint", "address", "status", "retryable", "retry_after", "attempts", "allowed", "timeout"):
        assert getattr(again, name) == getattr(first, name), name
    assert again.timeout == 5
    assert again.request_id == "recorded"
    assert again is not first


def test_a_failed_opening_is_replayed_with_its_attempts(load: Any, file: Path) -> None:
    told = []
    for mode in ("record", "replay"):
        model = load("http://127.0.0.1:9/v2/models/m", retry=aiaas.Retry(attempts=2, wait=0.01))
        with recording(file, mode), pytest.raises(aiaas.ConnectError) as caught:
            model.predict(X)
        told.append((caught.value.message, caught.value.attempts, caught.value.allowed))
    assert told[0] == told[1]
    assert lines(file)[0]["learnt"] == {"allowed": 2, "attempts": 2}


def test_a_failed_load_is_replayed(load: Any, file: Path, tmp_path: Path) -> None:
    with recording(file, "record"), pytest.raises(aiaas.ModelNotFoundError):
        load(tmp_path / "nothing")
    (tmp_path / "nothing" / "1").mkdir(parents=True)
    with recording(file), pytest.raises(aiaas.ModelNotFoundError):
        load(tmp_path / "nothing")


def test_a_block_that_raises_leaves_the_file_as_it_was(file: Path) -> None:
    file.write_text("as it was")
    model = aiaas.load("echo:")
    with pytest.raises(aiaas.ConfigError), recording(file, "record"):
        model.predict(X, timeout=model.predict(X).array.size - 7)
    assert file.read_text() == "as it was"


def test_a_call_that_was_given_up_is_not_recorded(file: Path) -> None:
    script = Script().answer([1.0], after=30)

    async def main() -> None:
        async with aiaas.load_async(script.address) as model:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(model.predict(X), 0.05)

    with recording(file, "record"):
        asyncio.run(main())
    assert [line["verb"] for line in lines(file)] == ["open"]


# ---------------------------------------------------------------- misses
def changed() -> np.ndarray:
    other = X.copy()
    other[1, 1:] = 99
    return other


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        ({"x": changed()}, {}, r"line 3: input 'x' differs in 2 of 6 elements, the first at \[1, 1\]\. "),
        ({"x": X[:1]}, {}, r"input 'x' has the shape \[1, 3\] and had \[2, 3\]"),
        ({"x": X.astype(np.float64)}, {}, "input 'x' is FP64 and was FP32"),
        ({"x": X, "mask": X}, {}, "line 3: input 'mask' wasn't there"),
        ({}, {}, "input 'x' is missing"),
        ({"x": X}, {"outputs": ["x"]}, r"option outputs is \['x'\] and was None"),
        (
            {"x": np.array([b"a"], object), "y": X},
            {},
            "input 'y' wasn't there; input 'x' is BYTES and was FP32; .*shape",
        ),
    ],
)
def test_a_miss_says_what_differs(load: Any, file: Path, inputs: Any, options: Any, words: str) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.predict({"x": X})
        model.predict({"z": X, "w": X, "v": X})
    with recording(file), load("echo:") as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=words) as caught:
            model.predict(inputs, **options)
        model.predict({"x": X})
    assert "99" not in str(caught.value).replace(str(file), "")  # no contents in errors
    assert caught.value.message.startswith(f"{file} has no call like this: predict of echo:")


def test_nan_equals_itself_and_minus_zero_is_another(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.predict(np.array([np.nan, 0.0], np.float32))
    with recording(file), load("echo:") as model:
        model.predict(np.array([np.nan, 0.0], np.float32))
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"1 of 2 elements, the first at \[1\]"):
            model.predict(np.array([np.nan, -0.0], np.float32))


def test_a_miss_of_another_model_names_those_that_there_are(load: Any, file: Path) -> None:
    with recording(file, "record"), load("echo:") as model:
        model.predict(X)
    with recording(file), pytest.raises(aiaas.UnsupportedOperationError, match="It has calls of echo:"):
        load("torch:models/digits").predict(X)


def test_a_missing_or_broken_file_is_told_at_once(file: Path) -> None:
    with pytest.raises(aiaas.ModelNotFoundError, match=r"calls\.jsonl"), recording(file):
        pass
    file.write_text("hello\n")
    with pytest.raises(aiaas.ProtocolError, match="line 1"), recording(file):
        pass
    with pytest.raises(aiaas.ConfigError, match="reply"), recording(file, "reply"):  # type: ignore[arg-type]
        pass


# ---------------------------------------------------------------- models from before
def test_a_model_from_before_is_recorded_and_each_recording_can_be_played_alone(load: Any, tmp_path: Path) -> None:
    model = load("echo:")
    with recording(tmp_path / "a", "record"):
        model.predict(X)
    with recording(tmp_path / "b", "record"):
        model.predict(X + 1)
    model.predict(X + 2)  # asks the model itself again
    for name, x in (("a", X), ("b", X + 1)):
        with recording(tmp_path / name):
            assert load("echo:").predict(x).array.tolist() == x.tolist()
            assert model.predict(x).array.tolist() == x.tolist()
            with pytest.raises(aiaas.UnsupportedOperationError):
                model.predict(X + 2)
    model.predict(X + 2)


def test_a_model_loaded_in_one_replay_serves_the_next_and_then_says_that_it_is_over(load: Any, tmp_path: Path) -> None:
    for name, x in (("a", X), ("b", X + 1)):
        with recording(tmp_path / name, "record"), load("echo:") as recorded:
            recorded.predict(x)
    with recording(tmp_path / "a"):
        model = load("echo:")
        model.predict(X)
    with recording(tmp_path / "b"):
        model.predict(X + 1)
    with pytest.raises(aiaas.UnsupportedOperationError, match="that is over"):
        model.predict(X)


def test_what_is_asked_after_the_recording_is_not_in_it(load: Any, file: Path) -> None:
    recorder = Recorder()
    with seam.stepping_in(recorder):
        model = load("echo:")
        model.predict(X)
    assert model.predict(X + 1).array.tolist() == (X + 1).tolist()
    recorder.save(file)
    assert [line["verb"] for line in lines(file)] == ["open", "predict"]


def test_models_are_let_go_of(file: Path) -> None:
    gc.collect()
    before = len(seam._engines)
    for mode in ("record", "replay"):
        with recording(file, mode):
            aiaas.load("echo:").predict(X)
            gc.collect()
            assert len(seam._engines) <= before
    assert seam._between == []


def test_many_threads_may_ask_while_recordings_come_and_go(file: Path) -> None:
    model, stop, failures = aiaas.load("echo:"), threading.Event(), []

    def ask() -> None:
        try:
            while not stop.is_set():
                assert model.predict(X).array.tolist() == X.tolist()
                aiaas.load("echo:").predict(X)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with recording(file, "record"):
            model.predict(X)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert [line["verb"] for line in lines(file)] == ["open", "predict"]


def test_the_file_is_found_though_the_block_changes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with recording("calls.jsonl", "record"):
        aiaas.load("echo:").predict(X)
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
    assert (tmp_path / "calls.jsonl").exists()
