"""Observers see each call, its requests and its end; they are never shown contents, and break nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.observing import pass_on, passed_on

ROOT = Path(__file__).parent.parent
X = np.array([[31.25, 2.0, 3.0]], np.float32)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# ---------------------------------------------------------------- an endpoint and an observer
class Peer(ThreadingHTTPServer):
    """Speaks the Open Inference Protocol in JSON: gives x back, after the statuses and pauses of `plan`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[int | float] = []
        """For each request of infer, in turn: a status that says no, or seconds to wait before saying yes."""
        self.heard: list[Mapping[str, str]] = []
        """The headers of each request of infer."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2/models/far"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Peer

    def do_GET(self) -> None:
        specs = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        document: Any = {"name": "peer", "version": "1", "extensions": []}
        if "/models/" in self.path:
            document = {"name": "far", "versions": ["7"], "platform": "", "inputs": specs, "outputs": specs}
        self._answer(200, document)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        self.server.heard.append({name.lower(): value for name, value in self.headers.items()})
        step = self.server.plan.pop(0) if self.server.plan else 0.0
        if isinstance(step, int):
            return self._answer(step, {"error": "not now"})
        time.sleep(step)
        self._answer(200, {"model_name": "far", "model_version": "7", "outputs": given})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the client has left
            pass

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


class Recorder:
    """Keeps what it is told."""

    def __init__(self, headers: Any = None) -> None:
        self.headers = headers
        self.told: list[tuple[str, aiaas.CallEvent, Any]] = []

    @hookimpl
    def aiaas_call_started(self, call: aiaas.CallEvent) -> Any:
        assert (call.error, call.attempts, call.timing.total) == (None, 0, 0)
        self.told.append(("started", call, call.verb))
        return self.headers

    @hookimpl
    def aiaas_attempt_finished(self, call: aiaas.CallEvent, attempt: aiaas.AttemptEvent) -> None:
        self.told.append(("attempt", call, attempt))

    @hookimpl
    def aiaas_call_finished(self, call: aiaas.CallEvent, error: str | None) -> None:
        self.told.append(("finished", call, error))

    def of(self, verb: str) -> list[tuple[str, Any]]:
        return [(what, fact) for what, call, fact in self.told if call.verb == verb]

    @property
    def attempts(self) -> list[tuple[int, int | None, str | None]]:
        return [(a.number, a.status, a.error) for what, call, a in self.told if what == "attempt" and _is_verb(call)]

    @property
    def last(self) -> aiaas.CallEvent:
        return self.told[-1][1]


def _is_verb(call: aiaas.CallEvent) -> bool:
    return call.verb != "open"


@pytest.fixture
def seen() -> Iterator[Recorder]:
    recorder = Recorder()
    with aiaas.observe(recorder):
        yield recorder


# ---------------------------------------------------------------- what is told
def test_a_call_here_is_told_from_start_to_end(load: Any, seen: Recorder) -> None:
    with load("echo:?x=FP32[-1,3]") as model:
        for timeout in (None, 10):
            seen.told.clear()
            model.predict(X, timeout=timeout)
            assert seen.of("predict") == [("started", "predict"), ("finished", None)]
            assert seen.told[0][1] is seen.last
            call = seen.last
            assert (call.verb, call.model, call.backend, call.attempts) == ("predict", "echo", "echo", 0)
            assert call.address == "echo:?x=FP32[-1,3]"
            assert call.inputs == (aiaas.TensorSpec("x", "FP32", (1, 3)),)
            assert (call.input_bytes, call.usage.rows, call.error, call.status) == (12, 1, None, None)
            assert 0 < call.timing.total < 5
            assert call.timing.compute is not None


def test_opening_is_a_call_of_its_own(load: Any, peer: Peer, seen: Recorder) -> None:
    with load(peer.address) as model:
        assert [what for what, *_ in seen.told] == ["started", "attempt", "attempt", "finished"]
        call = seen.last
        assert (call.verb, call.model, call.version, call.attempts) == ("open", "far", "7", 2)
        assert call.timing.total > 0
        model.info()
        assert len(seen.told) == 4


def test_what_is_known_of_an_endpoint_is_told_at_the_start(load: Any, peer: Peer) -> None:
    known = []

    class Early:
        @hookimpl
        def aiaas_call_started(self, call: aiaas.CallEvent) -> None:
            known.append((call.verb, call.model, call.version, call.backend, call.usage.rows, call.input_bytes))

    with aiaas.observe(Early()), load(peer.address) as model:
        model.predict(X)
    assert known == [("open", "", None, "oip", None, None), ("predict", "far", "7", "oip", 1, 12)]


def test_each_request_is_told_and_carries_the_observers_headers(load: Any, peer: Peer) -> None:
    recorder = Recorder({"Traceparent": PARENT})
    peer.plan = [503, 502]
    with aiaas.observe(recorder), load(peer.address, retry=aiaas.Retry(wait=0.01)) as model:
        assert model.predict(X).attempts == 3
    assert recorder.attempts == [(1, 503, "UnavailableError"), (2, 502, "UnavailableError"), (3, 200, None)]
    assert recorder.of("predict")[-1] == ("finished", None)
    assert recorder.last.attempts == 3
    assert recorder.last.request_id
    assert all(a.seconds > 0 for what, _, a in recorder.told if what == "attempt")
    assert [heard["traceparent"] for heard in peer.heard] == [PARENT] * 3


def test_a_failure_is_told_by_its_class_and_status(load: Any, peer: Peer, seen: Recorder) -> None:
    peer.plan = [422]
    with load(peer.address) as model, pytest.raises(aiaas.InvalidRequestError):
        model.predict(X)
    assert seen.of("predict")[-1] == ("finished", "InvalidRequestError")
    call = seen.last
    assert (call.error, call.status, call.attempts, call.model, call.version) == (
        "InvalidRequestError",
        422,
        1,
        "far",
        "7",
    )
    assert call.timing.total > 0


def test_inputs_that_are_refused_are_told_too(load: Any, seen: Recorder) -> None:
    with load("echo:?x=FP32[-1,3]") as model:
        with pytest.raises(aiaas.InputError):
            model.predict(X.astype(np.float64))
        assert seen.of("predict") == [("started", "predict"), ("finished", "InputError")]
        assert seen.last.inputs == ()
        assert seen.last.input_bytes is None


def test_an_endpoint_that_is_not_there_is_told(load: Any, seen: Recorder) -> None:
    model = load("http://127.0.0.1:9/v2/models/none", retry=None)
    with pytest.raises(aiaas.ConnectError):
        model.predict(X)
    assert [what for what, *_ in seen.told] == ["started", "attempt", "finished"]
    assert (seen.last.verb, seen.last.error, seen.last.status) == ("open", "ConnectError", None)
    model.close()


def test_each_call_of_map_is_told(load: Any, seen: Recorder, peer: Peer) -> None:
    for address, lanes in (("echo:?x=FP32[-1,3]", 1), (peer.address, 3)):
        seen.told.clear()
        with load(address) as model:
            assert len(list(model.map(np.zeros((10, 3), np.float32), batch_size=4, concurrency=lanes))) == 10
        calls = [call for what, call, _ in seen.told if what == "finished" and _is_verb(call)]
        assert sorted(call.usage.rows or 0 for call in calls) == [2, 4, 4]
        assert len({id(call) for call in calls}) == 3


def test_a_route_tells_who_answered(load: Any, seen: Recorder) -> None:
    with load(["http://127.0.0.1:9/v2/models/none", "echo:?x=FP32[-1,3]"], retry=None) as model:
        model.predict(X)
    assert seen.last.backend == "echo"
    assert seen.last.address.startswith("[http://127.0.0.1:9/")


def test_calls_of_many_threads_are_told_in_pairs(seen: Recorder) -> None:
    with aiaas.load("echo:?x=FP32[-1,3]", concurrency=4) as model, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: model.predict(np.zeros((n + 1, 3), np.float32)), range(40)))
    started = {id(call): call for what, call, _ in seen.told if what == "started" and _is_verb(call)}
    finished = {id(call): call for what, call, _ in seen.told if what == "finished" and _is_verb(call)}
    assert started == finished
    assert sorted(call.usage.rows or 0 for call in finished.values()) == list(range(1, 41))


def test_hedged_requests_are_told_and_the_loser_is_cancelled(load: Any, peer: Peer, seen: Recorder) -> None:
    peer.plan = [0.6, 0.0]
    with load(peer.address, hedge=aiaas.Hedge(delay=0.05), timeout=10) as model:
        model.predict(X)
    assert sorted(seen.attempts) == [(1, None, "CancelledError"), (2, 200, None)]
    assert seen.last.attempts == 2


# ---------------------------------------------------------------- ends that nobody planned
async def test_a_cancelled_call_is_told_and_the_cancellation_passes(peer: Peer, seen: Recorder) -> None:
    peer.plan = [5.0]
    async with aiaas.load_async(peer.address) as model:
        task = asyncio.ensure_future(model.predict(X))
        while not peer.heard:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen.attempts == [(1, None, "CancelledError")]
    assert seen.of("predict")[-1] == ("finished", "CancelledError")


async def test_a_call_here_that_is_cancelled_is_told(seen: Recorder) -> None:
    async with aiaas.load_async("echo:?x=FP32[-1,3]") as model:
        task = asyncio.ensure_future(model.predict(X))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen.of("predict") == [("started", "predict"), ("finished", "CancelledError")]


def test_a_deadline_is_told(load: Any, peer: Peer, seen: Recorder) -> None:
    peer.plan = [2.0]
    with load(peer.address) as model, pytest.raises(aiaas.DeadlineExceededError):
        model.predict(X, timeout=0.5)
    assert seen.last.error == "DeadlineExceededError"
    assert seen.attempts == [(1, None, "DeadlineExceededError")]
    assert 0.4 < seen.last.timing.total < 1.8


@pytest.mark.parametrize("timeout", [None, 10])
def test_an_interrupt_is_told_and_passes(seen: Recorder, timeout: float | None) -> None:
    class Interrupting:
        shape = (1, 3)

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    with aiaas.load("echo:?x=FP32[-1,3]") as model, pytest.raises(KeyboardInterrupt):
        model.predict(Interrupting(), timeout=timeout)
    assert seen.of("predict") == [("started", "predict"), ("finished", "KeyboardInterrupt")]


def test_a_call_made_while_another_error_is_handled_passes_all_the_same(load: Any, seen: Recorder) -> None:
    with load("echo:?x=FP32[-1,3]") as model:
        try:
            raise LookupError("somebody's own")
        except LookupError:
            model.predict(X)
    assert seen.of("predict")[-1] == ("finished", None)


# ---------------------------------------------------------------- no contents, no credentials
def test_an_event_holds_no_contents_and_no_key(load: Any, peer: Peer, seen: Recorder, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    key, text = "sk-very-secret", b"the contents of a text"
    with load(peer.address, api_key=key, headers={"x-token": key}) as model:
        model.predict(X)
    assert peer.heard[-1]["authorization"] == f"Bearer {key}"
    with load("echo:?s=BYTES[-1]&x=FP32[-1,3]") as model:
        model.predict({"s": [text], "x": X})
    assert [spec.shape for spec in seen.last.inputs] == [(1,), (1, 3)]
    assert seen.last.input_bytes is None
    contents = [X.tobytes(), b"31.25", text, key.encode()]
    for what, call, fact in seen.told:
        shown = pickle.dumps((call, fact)) + repr((what, call, fact)).encode()
        assert not [content for content in contents if content in shown]
    assert "predict" in caplog.text
    assert not [content for content in contents[1:] if content.decode() in caplog.text]


def test_an_event_is_frozen_and_survives_pickling(load: Any, peer: Peer, seen: Recorder) -> None:
    peer.plan = [422]
    with load(peer.address) as model, pytest.raises(aiaas.InvalidRequestError):
        model.predict(X)
    call, back = seen.last, pickle.loads(pickle.dumps(seen.last))
    for name in ("verb", "address", "model", "version", "backend", "attempts", "request_id", "timing", "usage"):
        assert getattr(back, name) == getattr(call, name)
    assert (back.inputs, back.input_bytes, back.error, back.status) == (call.inputs, 12, call.error, 422)
    for name in ("verb", "error", "attempts", "anything"):
        with pytest.raises(AttributeError):
            setattr(call, name, "other")


def test_a_call_is_let_go_with_its_answer(peer: Peer) -> None:
    refs = []

    class Weak:
        @hookimpl
        def aiaas_call_finished(self, call: aiaas.CallEvent, error: str | None) -> None:
            refs.append(weakref.ref(call))

    with aiaas.observe(Weak()), aiaas.load(peer.address) as model:
        gc.collect()
        gc.disable()
        try:
            model.predict(X)
            assert [ref() for ref in refs[-1:]] == [None]
        finally:
            gc.enable()


# ---------------------------------------------------------------- observers that are wrong
class Faulty:
    """Fails in every hook."""

    @hookimpl
    def aiaas_call_started(self, call: aiaas.CallEvent) -> None:
        raise RuntimeError("start")

    @hookimpl
    def aiaas_attempt_finished(self, call: aiaas.CallEvent, attempt: aiaas.AttemptEvent) -> None:
        raise RuntimeError("attempt")

    @hookimpl
    def aiaas_call_finished(self, call: aiaas.CallEvent, error: str | None) -> None:
        raise ValueError("end")


def test_an_observer_that_fails_breaks_nothing_and_is_named_once(load: Any, peer: Peer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "aiaas_sdk.observing")
    recorder = Recorder()
    with aiaas.observe(Faulty()), aiaas.observe(recorder), load(peer.address, retry=None) as model:
        model.predict(X)
        peer.plan = [422]
        with pytest.raises(aiaas.InvalidRequestError):
            model.predict(X)
    assert [what for what, _ in recorder.of("predict")] == ["started", "attempt", "finished"] * 2
    mine = [record for record in caplog.records if record.name == "aiaas_sdk.observing"]
    assert [record.levelname for record in mine].count("WARNING") == 1
    assert mine[0].levelname == "WARNING"
    assert "Faulty failed in aiaas_call_started: RuntimeError" in mine[0].getMessage()
    assert len(mine) == 10  # open: start, two attempts, end; each predict: start, attempt, end


class Misspelt:
    @hookimpl
    def aiaas_call_startd(self, call: Any) -> None: ...


class Strange:
    @hookimpl
    def aiaas_call_finished(self, call: Any, colour: Any) -> None: ...


class Awaiting:
    @hookimpl
    async def aiaas_call_finished(self, call: Any) -> None: ...


class Unmarked:
    def aiaas_call_finished(self, call: Any, error: Any) -> None: ...


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Misspelt(), "aiaas_call_startd"),
        (Strange(), "(?s)aiaas_call_finished.*colour"),
        (Awaiting(), "aiaas_call_finished is async"),
        (Unmarked(), "Unmarked has no hook"),
        (Recorder, "the class Recorder"),
        (None, "no hook"),
    ],
)
def test_an_observer_that_cannot_work_is_refused(plugin: Any, words: str) -> None:
    with pytest.raises(aiaas.ConfigError, match=words):
        aiaas.observe(plugin)


def test_an_observer_is_registered_once(seen: Recorder) -> None:
    with pytest.raises(aiaas.ConfigError, match="Recorder observes already"):
        aiaas.observe(seen)


@pytest.mark.parametrize(
    "headers", [{"a b": "c"}, {"a": "x\r\nb: c"}, {"a": 3}, ["a"], {"a": ""}, {"a": "é"}, {1: "a"}]
)
def test_headers_that_cannot_be_sent_are_left_out(load: Any, peer: Peer, caplog: Any, headers: Any) -> None:
    with aiaas.observe(Recorder(headers)), load(peer.address) as model:
        model.predict(X)
    assert not {"a", "b", "a b"} & peer.heard[-1].keys()
    assert [record.levelname for record in caplog.records if record.name == "aiaas_sdk.observing"] == ["WARNING"]


def test_an_observer_cannot_replace_the_requests_own_headers(load: Any, peer: Peer) -> None:
    recorder = Recorder({"Authorization": "Bearer other", "Content-Type": "text/plain", "x-mine": "1"})
    with aiaas.observe(recorder), load(peer.address, api_key="key") as model:
        model.predict(X)
    heard = peer.heard[-1]
    assert (heard["authorization"], heard["content-type"], heard["x-mine"]) == ("Bearer key", "application/json", "1")


def test_an_observer_that_asks_a_model_does_not_observe_itself(load: Any) -> None:
    class Asking(Recorder):
        @hookimpl
        def aiaas_call_started(self, call: aiaas.CallEvent) -> None:
            super().aiaas_call_started(call)
            inner.predict(X)

    recorder = Asking()
    with aiaas.load("echo:") as inner, load("echo:?x=FP32[-1,3]") as model:
        model.info()
        with aiaas.observe(recorder):
            model.predict(X)
            model.predict(X)
    assert [what for what, *_ in recorder.told] == ["started", "finished"] * 2


# ---------------------------------------------------------------- coming and going
def test_an_observer_sees_nothing_before_and_after(load: Any) -> None:
    recorder = Recorder()
    with load("echo:?x=FP32[-1,3]") as model:
        model.predict(X)
        handle = aiaas.observe(recorder)
        model.predict(X)
        handle.close()
        handle.close()
        model.predict(X)
    assert [what for what, *_ in recorder.told] == ["started", "finished"]


async def test_a_call_in_flight_is_told_to_its_end_by_those_who_heard_its_start(peer: Peer) -> None:
    early, late = Recorder(), Recorder()
    peer.plan = [0.2]
    async with aiaas.load_async(peer.address) as model:
        handle = aiaas.observe(early)
        task = asyncio.ensure_future(model.predict(X))
        while not peer.heard:
            await asyncio.sleep(0.01)
        handle.close()
        with aiaas.observe(late):
            await task
    assert [what for what, *_ in early.told] == ["started", "attempt", "finished"]
    assert late.told == []


def test_an_observer_may_switch_itself_off(load: Any) -> None:
    class Switched(Recorder):
        on: Any = False

        @hookimpl
        def aiaas_observes(self) -> bool:
            if self.on is None:
                raise RuntimeError("broken switch")
            return bool(self.on)

    recorder = Switched()
    with aiaas.observe(recorder), load("echo:?x=FP32[-1,3]") as model:
        for recorder.on in (False, True, None):
            model.predict(X)
    assert len(recorder.told) == 2


# ---------------------------------------------------------------- installed observers
SCRIPT = """
import json, logging, sys
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
import aiaas_sdk as aiaas

def plugins():
    return sorted(name for name in sys.modules if name.endswith("_observer"))

assert plugins() == []
models = [aiaas.load("echo:?x=FP32[-1]") for _ in range(3)]
assert plugins() == [], plugins()
for model in models:
    for timeout in (None, 10):
        assert model.predict([1.0], timeout=timeout).array.tolist() == [1.0]
print(json.dumps(plugins()))
"""
WATCHER = """
from aiaas_sdk.hookspecs import hookimpl

@hookimpl
def aiaas_call_finished(call, error):
    print("saw", call.verb, call.model, error)
"""


def install(folder: Path, name: str, code: str, metadata: str = "") -> None:
    info = folder / f"aiaas_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: aiaas-{name}\nVersion: 1.0\n{metadata}")
    (info / "entry_points.txt").write_text(f"[aiaas_sdk.observers]\n{name} = {name}_observer\n")
    (folder / f"{name}_observer.py").write_text(textwrap.dedent(code))


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], list[str]]:
    """Runs a script, with the distributions in `tmp_path` installed; gives its lines."""

    def run(code: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, tmp_path]))}
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_an_installed_observer_is_imported_at_the_first_opening_and_misses_nothing(run: Any, tmp_path: Path) -> None:
    install(tmp_path, "watcher", WATCHER)
    lines = run(SCRIPT)
    assert lines[:-1] == ["saw open echo None", *["saw predict echo None"] * 2] * 3
    assert json.loads(lines[-1]) == ["watcher_observer"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("raise SystemExit(3)", "SystemExit"),
        ("import nothing_like_this", "nothing_like_this"),
        (WATCHER.replace("finished", "finnished"), "aiaas_call_finnished"),
        (WATCHER.replace("(call, error)", "(call, colour)"), "colour"),
        (WATCHER.replace("@hookimpl", ""), "no hook"),
    ],
)
def test_a_broken_installed_observer_is_named_once_and_costs_nobody_anything(
    run: Any, tmp_path: Path, code: str, words: str
) -> None:
    install(tmp_path, "broken", code)
    install(tmp_path, "watcher", WATCHER)
    lines = run(SCRIPT)
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING aiaas_sdk.observing the observer broken (distribution aiaas-broken)")
    assert words in "\n".join(lines)
    assert lines.count("saw open echo None") == 3


def test_an_observer_whose_extra_is_not_installed_is_passed_over(run: Any, tmp_path: Path) -> None:
    needs = 'Provides-Extra: far\nRequires-Dist: nothing-like-this; extra == "far"\n'
    install(tmp_path, "far", "raise RuntimeError", needs)
    assert run(SCRIPT) == ["[]"]


# ---------------------------------------------------------------- the log
def test_the_log_has_a_line_for_each_call_and_request(load: Any, peer: Peer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "aiaas_sdk.calls")
    peer.plan = [503, 422]
    with load(peer.address, retry=aiaas.Retry(wait=0.01)) as model:
        caplog.clear()
        with pytest.raises(aiaas.InvalidRequestError):
            model.predict(X)
    lines = [record.getMessage() for record in caplog.records if record.name == "aiaas_sdk.calls"]
    assert len(lines) == 3
    for line, words in zip(
        lines,
        ("attempt 1, UnavailableError 503", "attempt 2, InvalidRequestError 422", "InvalidRequestError 422"),
        strict=True,
    ):
        assert line.startswith(f"predict {peer.address}: {words}, ")
        assert " ms" in line
    caplog.set_level(logging.INFO, "aiaas_sdk.calls")
    caplog.clear()
    with load(peer.address) as model:
        model.predict(X)
    assert [record for record in caplog.records if record.name == "aiaas_sdk.calls"] == []


# ---------------------------------------------------------------- through a server
@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a=1, b=2"}, {"traceparent": PARENT, "tracestate": "a=1, b=2"}),
        ({"traceparent": PARENT, "tracestate": "a=" + 600 * "x"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "baggage": "user=ann"}, {"traceparent": PARENT}),
        ({"tracestate": "a=1"}, {}),
        ({"traceparent": "nonsense"}, {}),
    ],
)
def test_a_gateway_passes_the_trace_context_on(peer: Peer, sent: dict[str, str], arrives: dict[str, str]) -> None:
    pytest.importorskip("starlette")
    from aiaas_sdk.server import serve_in_thread

    with serve_in_thread([peer.address]) as url, aiaas.load(f"{url}/v2/models/far", headers=sent) as model:
        model.predict(X)
        plain = aiaas.load(f"{url}/v2/models/far")
        plain.predict(X)
        plain.close()
    traced, untraced = peer.heard
    assert {name: traced[name] for name in ("traceparent", "tracestate", "baggage") if name in traced} == arrives
    assert "traceparent" not in untraced


async def test_the_trace_context_stays_in_its_task() -> None:
    async def serve(parent: str) -> str:
        pass_on({"traceparent": parent})
        await asyncio.sleep(0.01)
        return passed_on()["traceparent"]

    parents = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 6)]
    assert await asyncio.gather(*map(serve, parents)) == parents
    assert passed_on() == {}
