"""Several processes on one port: one server to everybody outside, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server import running, serve, serve_in_thread
from aiaas_sdk.server.allowances import Limits
from aiaas_sdk.server.keys import made, write_keys
from aiaas_sdk.server.ledger import NOW, Ledger
from aiaas_sdk.server.listening import listening, reserved
from tests.server.stuck import BUSY

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROGRAM = """
import json, logging, sys
from aiaas_sdk.server import running, serve
from tests.server.stuck import prepare
logging.basicConfig()
running.SILENCE = float(sys.argv[2])
serve(["one=echo:?x=FP32[-1,3]"], workers=2, announce=lambda url, names: print(url, *names, flush=True),
      prepare=prepare, **json.loads(sys.argv[1]))
"""
SILENCE = 4.0
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}).encode()


@contextmanager
def started(
    port: int = 0, silence: float = running.SILENCE, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    # a session of its own, so that a signal can be sent to all its processes as a terminal does it
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps({"port": port, **options}), str(silence)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line[1:] == ["one"], process.communicate(timeout=10)[1]
        yield process, line[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def call(url: str, path: str = "/v2/models/one/infer", body: bytes | None = BODY) -> str:
    with urllib.request.urlopen(urllib.request.Request(url + path, body), timeout=10) as reply:
        return str(reply.read().decode())


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def metric(url: str, name: str) -> float:
    text = call(url, "/metrics", None)
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@linux
@pytest.mark.slow
def test_each_tells_of_all_and_one_that_dies_is_started_again() -> None:
    with started() as (process, url):
        for _ in range(40):
            assert "6.0" in call(url)
        for _ in range(6):  # whichever answers
            assert metric(url, "aiaas_calls_total{") == 40
            (stats,) = json.loads(call(url, "/v2/models/one/stats", None))["model_stats"]
            assert stats["inference_count"] == 80
        before = workers_of(process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{before[0]}").exists())
        time.sleep(0.1)
        for _ in range(20):  # the other one goes on
            call(url)
        until(lambda: len(workers_of(process.pid)) == 2)
        for _ in range(4):
            assert metric(url, "aiaas_calls_total{") == 60
            # an answer is here before its process has counted its end, and the other process may see it still run
            until(lambda: metric(url, "aiaas_requests_running") == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)


def listening_at(url: str) -> int:
    """How many sockets listen at the server's port."""
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


class Asker:
    """Asks with a key that has limits, each time on a connection of its own, which any process may get."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._begun = time.monotonic()
        self.asked = self.refused = 0

    def left(self, path: str, body: bytes, what: str) -> int | None:
        """What the answer says that is left; None for 429."""
        self.asked += 1
        request = urllib.request.Request(self._url + path, body, self._headers)
        try:
            reply: Any = urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            self.refused += reply.status == 429
            return None if reply.status == 429 else int(reply.headers[f"x-ratelimit-remaining-{what}"])

    def back(self, size: int) -> float:
        """What has come back of a limit, at most."""
        return (time.monotonic() - self._begun) * size / 60


@linux
@pytest.mark.slow
def test_a_limit_is_one_for_all(tmp_path: Path) -> None:
    """V15: and what a process that died has counted stays counted."""
    text, key = made("alice", limits=Limits(requests_per_minute=40))
    write_keys(tmp_path / "keys.toml", [key])
    with started(api_keys=str(tmp_path / "keys.toml")) as (process, url):
        asker = Asker(url, text)

        def ask() -> None:
            left = asker.left("/v2/models/one/infer", BODY, "requests")
            if left is not None:
                used = asker.asked - asker.refused
                assert 40 - used <= left <= 40 - used + asker.back(40)

        for _ in range(20):
            ask()
        before = workers_of(process.pid)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: listening_at(url) == 1)
        for _ in range(10):
            ask()
        assert asker.refused == 0
        until(lambda: listening_at(url) == 2)
        while not asker.refused:
            ask()
        for _ in range(10):
            ask()
        assert 40 <= asker.asked - asker.refused <= 40 + asker.back(40)


@linux
@pytest.mark.slow
def test_tokens_are_counted_over_all(tmp_path: Path) -> None:
    text, key = made("alice", limits=Limits(tokens_per_minute=1000))
    write_keys(tmp_path / "keys.toml", [key])
    body = json.dumps({"model": "nobody", "prompt": "a" * 400}).encode()  # what nobody counted is estimated
    with started(api_keys=str(tmp_path / "keys.toml")) as (_, url):
        asker = Asker(url, text)
        for number in range(1, 9):
            left = asker.left("/v1/completions", body, "tokens")
            assert left is not None
            used = number * len(body) / 4
            assert 999 - used <= left <= 1000 - used + asker.back(1000)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "in C"])
def test_one_that_hangs_is_killed_and_started_again(number: signal.Signals) -> None:
    with started(silence=SILENCE) as (process, url):
        before = workers_of(process.pid)
        os.kill(before[0], number)
        begun = time.monotonic()
        until(lambda: not Path(f"/proc/{before[0]}").exists(), SILENCE + 10)
        assert time.monotonic() - begun > SILENCE - 2
        until(lambda: len(workers_of(process.pid)) == 2)
        assert before[1] in workers_of(process.pid)
        assert "6.0" in call(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stderr is not None
        told = process.stderr.read()
    assert f"process {before[0]} of the server hung for 4 s and was killed" in told
    assert f"process {before[0]} of the server ended: status -9; another follows in 0.5 s" in told
    assert ("stuck.py" in told) == (number == signal.SIGUSR1)  # where it hung, as far as it could say so itself


@linux
@pytest.mark.slow
def test_one_that_is_busy_or_was_stopped_with_all_is_left_alone() -> None:
    with started(silence=SILENCE) as (process, url):
        before = workers_of(process.pid)
        os.kill(before[0], signal.SIGUSR2)
        time.sleep(BUSY + 0.5)
        os.killpg(process.pid, signal.SIGSTOP)  # as a terminal does it, or a container that is frozen
        time.sleep(SILENCE + 1)
        process.send_signal(signal.SIGCONT)  # who watches goes on first, and hears nothing for a while
        time.sleep(0.8)
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(1.5)
        assert workers_of(process.pid) == before
        for _ in range(4):
            assert "6.0" in call(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert "hung" not in process.stderr.read()


@linux
@pytest.mark.slow
def test_ctrl_c_reaches_them_all_and_ends_them_in_order() -> None:
    with started() as (process, _):
        workers = workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@linux
@pytest.mark.slow
def test_nothing_is_left_where_the_first_process_is_killed() -> None:
    with started() as (process, url):
        workers = workers_of(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    port = int(url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.slow
def test_the_port_belongs_to_this_server_alone() -> None:
    with started() as (_, url):
        port = int(url.rpartition(":")[2])
        for workers in (1, 2):
            with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port}"):
                serve(["echo:"], port=port, workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port}"):
            serve(["echo:"], port=port, workers=2)


@pytest.mark.slow
def test_what_keeps_one_from_starting_is_told(tmp_path: Path) -> None:
    with pytest.raises(aiaas.ModelNotFoundError, match="nothing"):
        serve([f"torch:{tmp_path / 'nothing'}"], port=0, workers=2)
    with pytest.raises(aiaas.ModelNotReadyError, match="status 7"):
        serve(["echo:"], port=0, workers=2, prepare=partial(os._exit, 7))


def test_the_port_is_kept_while_nobody_listens_yet() -> None:
    with reserved("127.0.0.1", 0) as kept:
        port = kept.getsockname()[1]
        for take in (listening, reserved):
            with pytest.raises(ConfigError, match="can't listen"):
                take("127.0.0.1", port)
        with listening("127.0.0.1", port, shared=True):
            pass
    with listening("127.0.0.1", port):
        pass


def test_a_thread_serves_in_one_process() -> None:
    with pytest.raises(ConfigError, match="a thread serves in one process"), serve_in_thread(["echo:"], workers=2):
        pass
    failures: list[BaseException] = []

    def run() -> None:
        try:
            serve(["echo:"], port=0, workers=2)
        except ConfigError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(failures[0])


def test_what_cant_be_sent_to_another_process_is_told() -> None:
    with pytest.raises(ConfigError, match="can't be sent to another process"):
        serve(["echo:"], port=0, workers=2, prepare=lambda: None)


def test_pages_are_added_up_and_outlive_their_process(tmp_path: Path) -> None:
    files = [open(tmp_path / name, "w+b") for name in ("a", "b")]  # noqa: SIM115
    try:
        a, b = (file.fileno() for file in files)
        one, two = Ledger(), Ledger()
        one.share(0, a, [b])
        two.share(1, b, [a])
        one.row("model", "m")[0] += 3
        one.row(NOW, "running")[0] += 1
        two.row("model", "m")[0] += 4
        two.row("model", "ü\n")[5] += 1
        assert one.total("model", "m")[0] == two.total("model", "m")[0] == 7
        assert one.total("model", "ü\n")[5] == 1
        again = Ledger()
        again.share(0, a, [b])  # in the place of the first, which has died
        again.row("model", "m")[0] += 1
        assert two.total("model", "m")[0] == 8
        assert two.total(NOW, "running")[0] == 0
    finally:
        for file in files:
            file.close()


def test_a_full_page_loses_no_old_row() -> None:
    ledger = Ledger()
    for number in range(5000):
        ledger.row("model", str(number))[0] += 1
    assert ledger.total("model", "0")[0] == 1
    assert len(ledger.totals()) == 4096
