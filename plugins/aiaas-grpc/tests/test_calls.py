"""Calls over a real connection: policies, deadlines, cancelling, credentials, and what may happen to a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.hookspecs import hookimpl
from tests.stopwatch import Stopwatch, unhurried

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SLACK = 0.25


def waiting(seconds: float) -> Any:
    return lambda context: time.sleep(seconds)


def until_left(ended: threading.Event) -> Any:
    """A step that goes on until its client has gone."""

    def step(context: Any) -> None:
        context.add_callback(ended.set)
        ended.wait(5)

    return step


def inferring(scripted: Any) -> list[Any]:
    return [seen for seen in scripted.seen if seen[0] == "ModelInfer"]


# ---------------------------------------------------------------- what a call is
def test_a_call(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        info = model.info()
        prediction = model.predict(X)
        prediction["y"][0, 0] = 7  # its memory is the caller's
        assert model.ready()
    assert (info.name, info.version, info.versions, info.platform) == ("double", "1", ("1",), "test")
    assert (info.labels, info.device, info.metadata["note"]) == (("a", "b", "c"), "cpu", "plain")
    assert info.verbs == {"predict", "explain"}
    assert prediction["y"].tolist() == [[7, 2, 4], [6, 8, 10]]
    assert (prediction.backend, prediction.version, prediction.attempts) == ("grpc", "1b", 1)
    assert prediction.top(1)[1][0][0] == "c"
    assert 0 < prediction.timing.network < prediction.timing.total


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("grpc://127.0.0.1:1", "names no model"),
        ("grpc://127.0.0.1:1/elsewhere/x", "isn't a model's"),
        ("grpc://127.0.0.1:1/models/..", "'..'"),
        ("grpc://user:secret@127.0.0.1:1/models/x", "holds a user"),
        ("grpcs://127.0.0.1:1/models/x?key=secret", "a query"),
        ("grpc:models/x", "names no host"),
    ],
)
def test_an_address_that_cant_be(address: str, words: str) -> None:
    with pytest.raises(aiaas.AddressError, match=words) as caught:
        aiaas.load(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/models/double", {}),
        ("/models/double/", {}),
        ("/v2/models/double", {}),
        ("/models/double@1", {}),
        ("/models/double/versions/1", {}),
        ("", {"model": "double"}),
        ("/", {"model": "double"}),
    ],
)
def test_addresses_of_one_model(scripted: Any, path: str, options: Any) -> None:
    with aiaas.load(f"grpc://127.0.0.1:{scripted.port}{path}", timeout=5, **options) as model:
        assert model.predict(X)["y"].sum() == 30


def test_an_option_without_a_use_is_refused(scripted: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="no use for the option 'device'"):
        aiaas.load(scripted.address, device="cpu")


# ---------------------------------------------------------------- policies
def test_unavailable_is_tried_again_and_the_pause_is_the_peers(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        scripted.say(
            scripted.refusing("UNAVAILABLE", grpc_retry_pushback_ms="300"),
            scripted.refusing("RESOURCE_EXHAUSTED", grpc_retry_pushback_ms="10"),
        )
        watch = Stopwatch()
        assert model.predict(X).attempts == 3
        assert 0.3 < watch.took() < 1.5
    assert [seen[1]["aiaas-attempt"] for seen in inferring(scripted)] == ["1", "2", "3"]


def test_a_peer_that_wants_no_retry_gets_none(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        scripted.say(scripted.refusing("UNAVAILABLE", grpc_retry_pushback_ms="-1"))
        with pytest.raises(aiaas.UnavailableError):
            model.predict(X)
    assert len(inferring(scripted)) == 1


def test_what_the_model_did_wrong_isnt_tried_again(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        scripted.say(scripted.refusing("INTERNAL", "too big"))
        with pytest.raises(aiaas.ModelError, match="too big"):
            model.predict(X)
    assert len(inferring(scripted)) == 1


def test_a_breaker_opens(load: Any, scripted: Any) -> None:
    breaker = aiaas.Breaker(minimum=3, failures=0.5, rest=30)
    with load(scripted.address, timeout=5, retry=None, breaker=breaker) as model:
        scripted.say(*[scripted.refusing("UNAVAILABLE")] * 3)
        for _ in range(3):
            with pytest.raises(aiaas.UnavailableError):
                model.predict(X)
        with pytest.raises(aiaas.CircuitOpenError):
            model.predict(X)
    assert len(inferring(scripted)) == 3


def test_a_slow_call_is_hedged_and_the_loser_cancelled(load: Any, scripted: Any) -> None:
    ended = threading.Event()
    with load(scripted.address, timeout=5, hedge=aiaas.Hedge(delay=0.1)) as model:
        model.info()
        scripted.say(until_left(ended))
        watch = Stopwatch()
        assert model.predict(X).attempts == 2
        assert watch.took() < 1
        assert ended.wait(10)


def test_limits_hold(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5, limits=aiaas.Limits(requests_per_second=10)) as model:
        model.info()
        begun = time.monotonic()
        for _ in range(3):
            model.predict(X)
        assert time.monotonic() - begun > 0.19


# ---------------------------------------------------------------- time
def test_the_deadline_is_kept_and_travels(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=20) as model:
        model.info()
        scripted.say(waiting(1))
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(X, timeout=0.3)
        assert 0.29 < watch.took() < 0.3 + SLACK
    (_, metadata, left) = inferring(scripted)[0]
    assert 0.1 < left < 0.31
    assert 100 < int(metadata["aiaas-timeout-ms"]) <= 300


def test_an_attempt_has_a_limit_of_its_own(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5, attempt_timeout=0.3) as model:
        model.info()
        scripted.say(waiting(0.6))
        assert model.predict(X).attempts == 2


def test_no_deadline_is_none(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=None) as model:
        model.predict(X)
    (_, metadata, left) = inferring(scripted)[0]
    assert "aiaas-timeout-ms" not in metadata
    assert left is None or left > 1e6


def test_a_peer_that_accepts_and_says_nothing(load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = load(f"grpc://127.0.0.1:{silent.getsockname()[1]}/models/x", timeout=0.4)
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.info()
        assert watch.took() < 0.4 + SLACK
        model.close()


# ---------------------------------------------------------------- giving up
async def test_a_cancelled_task_cancels_the_call(scripted: Any) -> None:
    ended = threading.Event()
    async with aiaas.load_async(scripted.address, timeout=20) as model:
        await model.info()
        scripted.say(until_left(ended))
        task = asyncio.create_task(model.predict(X))
        while not inferring(scripted):  # the test's timeout bounds it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 2)
        assert (await model.predict(X)).attempts == 1
    assert len(inferring(scripted)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_ctrl_c_cancels_the_call(scripted: Any) -> None:
    ended = threading.Event()
    with aiaas.load(scripted.address, timeout=20) as model:
        model.info()
        scripted.say(until_left(ended))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            model.predict(X)
        assert ended.wait(10)
        assert model.predict(X).attempts == 1


def test_a_model_that_is_closed_lets_its_calls_end(scripted: Any) -> None:
    model = aiaas.load(scripted.address, timeout=5)
    model.info()
    scripted.say(waiting(0.4))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(model.predict(X)))
    thread.start()
    while not inferring(scripted):
        time.sleep(0.01)
    model.close()
    thread.join(5)
    assert found[0].attempts == 1
    with pytest.raises(aiaas.ClosedError):
        model.predict(X)


# ---------------------------------------------------------------- connections
def test_a_peer_that_isnt_there(load: Any) -> None:
    model = load("grpc://127.0.0.1:1/models/x", timeout=3)
    with pytest.raises(aiaas.ConnectError, match=r"can't connect to 127.0.0.1:1: Connection refused") as caught:
        model.info()
    assert caught.value.attempts == 3


def test_a_host_that_isnt_there(load: Any) -> None:
    with pytest.raises(aiaas.ConnectError, match="nowhere"):
        load("grpc://nowhere.invalid:8001/models/x", timeout=3, retry=None).info()


def test_a_port_that_speaks_http(load: Any) -> None:
    from aiaas_sdk.server import serve_in_thread

    with serve_in_thread(["echo:"]) as url:
        address = url.replace("http:", "grpc:") + "/models/echo"
        with pytest.raises(aiaas.ConnectError, match="doesn't speak gRPC"):
            load(address, timeout=3).info()


def test_a_server_that_comes_back(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=10) as model:
        model.predict(X)
        scripted.stop()
        with pytest.raises(aiaas.ConnectError):
            model.predict(X, timeout=1)
        scripted.start()
        assert model.predict(X)["y"].sum() == 30


def test_a_connection_that_is_lost_while_waiting(load: Any, scripted: Any) -> None:
    with Relay(scripted.port) as relay, load(f"grpc://127.0.0.1:{relay.port}/models/double", timeout=10) as model:
        model.info()

        def cut(context: Any) -> None:
            relay.cut()
            time.sleep(0.2)

        scripted.say(cut)
        assert model.predict(X).attempts == 2
        scripted.say(cut)
        with pytest.raises(aiaas.ConnectionLostError, match="was lost"):
            model.with_options(retry=None).predict(X)


def test_a_connection_that_was_forgotten_is_left(load: Any, scripted: Any) -> None:
    """A router drops what comes on a connection that was idle for long; only a new one helps."""
    with Relay(scripted.port) as relay, load(f"grpc://127.0.0.1:{relay.port}/models/double", timeout=10) as model:
        model.info()
        relay.forget()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(X, timeout=0.3)
        assert model.predict(X, timeout=2).attempts == 1


def test_a_closed_model_has_no_connection(load: Any, scripted: Any) -> None:
    with Relay(scripted.port) as relay:
        with load(f"grpc://127.0.0.1:{relay.port}/models/double", timeout=10) as model:
            model.predict(X)
            assert not relay.ended.is_set()
        assert relay.ended.wait(10)


def test_large_tensors_go_both_ways(load: Any, serving: Any) -> None:
    x = np.random.default_rng(1).random((2_000_000, 3), np.float32)  # 24 MB
    with load(f"{serving('e=echo:?x=FP32[-1,3]')}/models/e", timeout=30) as model:
        assert np.array_equal(model.predict(x)["x"], x)


def test_many_threads_get_their_own_answers(scripted: Any) -> None:
    wrong: list[Any] = []
    with aiaas.load(scripted.address, timeout=20) as model:

        def work(number: int) -> None:
            for place in range(20):
                x = np.full((1, 3), 100 * number + place, np.float32)
                if not np.array_equal(model.predict(x)["y"], 2 * x):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_model_serves_one_event_loop_after_the_other(scripted: Any) -> None:
    model = aiaas.load_async(scripted.address, timeout=5)

    async def several() -> float:
        answers = await asyncio.gather(*(model.predict(X) for _ in range(8)))
        return float(sum(answer["y"].sum() for answer in answers))

    assert [asyncio.run(several()) for _ in range(3)] == [240] * 3


class Relay:
    """Passes bytes on to a port, until it is told not to."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._mute: set[socket.socket] = set()
        self.ended = threading.Event()  # somebody has closed his end
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._mute:
                    sink.sendall(data)
            self.ended.set()

    def forget(self) -> None:
        """Swallow what comes on the connections that there are."""
        self._mute.update(*self._pairs)

    def cut(self) -> None:
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._pairs.clear()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()


# ---------------------------------------------------------------- credentials
def test_a_key_travels_as_metadata_and_is_never_shown(
    load: Any, scripted: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with load(scripted.address, timeout=5, api_key="k-12345678", headers={"X-Team": "blue"}) as model:
        model.predict(X)
        scripted.say(scripted.refusing("UNAUTHENTICATED", "k-12345678 isn't known"), waiting(0.4))
        with pytest.raises(aiaas.AuthenticationError, match="The key came from the") as refused:
            model.predict(X)
        with pytest.raises(aiaas.DeadlineExceededError) as late:
            model.predict(X, timeout=0.2)
    sent = inferring(scripted)[0][1]
    assert (sent["authorization"], sent["x-team"]) == ("Bearer k-12345678", "blue")
    assert sent["user-agent"].startswith("aiaas-sdk/")
    shown = [caplog.text, *capfd.readouterr()]
    for caught in (refused, late):
        shown += [str(caught.value), repr(caught.value)]
        frame = caught.tb.tb_next  # below this test
        while frame is not None:
            shown += [repr(value) for value in frame.tb_frame.f_locals.values() if value is not scripted]
            frame = frame.tb_next
    assert not any("k-12345678" in text for text in shown)


def test_a_refused_key_is_asked_for_again(load: Any, scripted: Any) -> None:
    keys = iter(["old-key-1", "new-key-2"])
    with load(scripted.address, timeout=5, api_key=lambda: next(keys)) as model:
        model.info()
        scripted.say(scripted.refusing("UNAUTHENTICATED"))
        assert model.predict(X).attempts == 1
    assert [seen[1]["authorization"][-1] for seen in inferring(scripted)] == ["1", "2"]


def test_a_key_of_the_settings(load: Any, scripted: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "key-of-the-settings")
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))
    key = f'[credentials."http://127.0.0.1:{scripted.port}"]\napi_key_env = "THE_KEY"\n'
    (tmp_path / "aiaas.toml").write_text(key)
    with load(scripted.address, timeout=5) as model:
        model.predict(X)
    assert inferring(scripted)[0][1]["authorization"] == "Bearer key-of-the-settings"


@pytest.mark.parametrize(
    ("headers", "words"),
    [({"X-Bad": "a\nsecret"}, "can't carry"), ({"x-bin": "secret"}, "name"), ({"grpc-x": "secret"}, "name")],
)
def test_a_header_that_grpc_cant_carry(
    load: Any, scripted: Any, headers: Any, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(aiaas.ConfigError, match=words) as caught,
        load(scripted.address, timeout=5, headers=headers) as model,
    ):
        model.predict(X)
    assert "secret" not in str(caught.value) + "".join(capfd.readouterr())


def test_observers_see_attempts_and_their_headers_travel(load: Any, scripted: Any) -> None:
    class Seen:
        def __init__(self) -> None:
            self.attempts: list[Any] = []

        @hookimpl
        def aiaas_call_started(self, call: Any) -> Any:
            return {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}

        @hookimpl
        def aiaas_attempt_finished(self, call: Any, attempt: Any) -> None:
            self.attempts.append((attempt.number, attempt.status))

    with load(scripted.address, timeout=5) as model:
        model.info()
        scripted.say(scripted.refusing("UNAVAILABLE"))
        with aiaas.observe(seen := Seen()):
            model.predict(X)
    assert seen.attempts == [(1, 503), (2, 200)]
    assert inferring(scripted)[0][1]["traceparent"].startswith("00-1")


# ---------------------------------------------------------------- processes
FORKED = """
import os, sys, numpy as np
{before}
import aiaas_sdk as aiaas
x = np.ones((1, 3), np.float32)
model = aiaas.load(sys.argv[1], timeout=3)
assert model.predict(x)["y"].sum() == 6
child = os.fork()
if child == 0:
    try:
        assert model.predict(x)["y"].sum() == 6
        print("child passed", flush=True)
    except aiaas.AiaasError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
assert model.predict(x)["y"].sum() == 6
print("parent passed", flush=True)
model.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("", "child passed"),
        ("import grpc", "UnsupportedOperationError gRPC can't be used in this process"),
        ("os.environ['GRPC_ENABLE_FORK_SUPPORT'] = '1'; import grpc", "child passed"),
    ],
)
def test_a_forked_child_works_or_says_why_not(scripted: Any, before: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(before=before), scripted.address],
        env={name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[1:]) == (0, ["parent passed"]), done.stderr
    assert lines[0].startswith(told)


LEFT = """
import asyncio, sys, aiaas_sdk as aiaas
kept = aiaas.load(sys.argv[1], timeout=5)
kept.predict([[1, 2, 3]])

async def some():
    models = [aiaas.load_async(sys.argv[1], timeout=5) for _ in range(10)]
    await asyncio.gather(*(model.predict([[1, 2, 3]]) for model in models))

for _ in range(3):
    asyncio.run(some())
"""


def test_a_script_ends_quietly_whatever_it_leaves_open(scripted: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", LEFT, scripted.address],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
