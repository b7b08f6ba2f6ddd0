"""The end of a server as a process of its own: nothing that it took on is lost, and it doesn't take for ever."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, json, sys, time
from aiaas_sdk.server import serve

options = json.loads(sys.argv[1])
stuck = options.pop("stuck", 0)

def announce(url, names):
    print(url, flush=True)
    if stuck:
        asyncio.get_running_loop().call_later(0.2, time.sleep, stuck)

serve(sys.argv[2:], port=0, announce=announce, **options)
"""


@contextmanager
def started(*targets: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(options), *targets]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.communicate(timeout=10)[1]
        yield process, url.removeprefix("http://")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class _Upstream(BaseHTTPRequestHandler):
    """A language model that says a word each twentieth of a second, as many as it is asked for."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        for number in range(asked["max_tokens"]):
            time.sleep(0.05)
            if asked.get("stream"):
                self._say({"delta": {"content": f"{number} "}, "index": 0, "finish_reason": None})
        if asked.get("stream"):
            self._say({"delta": {}, "index": 0, "finish_reason": "stop"})
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            message = {"role": "assistant", "content": "done"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.wfile.write(json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode())

    def _say(self, choice: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({"id": "1", "choices": [choice]}).encode() + b"\n\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # the gateway has gone
            super().handle()


@pytest.fixture
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"llm=openai+http://127.0.0.1:{server.server_port}/v1#m"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(connection: http.client.HTTPConnection, words: int, *, stream: bool) -> http.client.HTTPResponse:
    messages = [{"role": "user", "content": "go"}]
    body = {"model": "llm", "messages": messages, "max_tokens": words, "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    return connection.getresponse()


def test_under_load_with_streams_open_nothing_is_lost(upstream: str) -> None:
    outcomes: list[str] = []
    with started("one=echo:?x=FP32[-1,3]", upstream, drain_delay=1.0) as (process, where):

        def call() -> None:
            body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]})
            while True:
                connection = http.client.HTTPConnection(where, timeout=10)
                try:
                    connection.connect()
                except OSError:  # nobody listens any more: never taken on
                    return
                try:
                    closing = None
                    while closing != "close":
                        connection.request("POST", "/v2/models/one/infer", body)
                        reply = connection.getresponse()
                        closing = reply.getheader("connection")
                        outcomes.append("whole" if reply.status == 200 and b"3.0]" in reply.read() else "broken")
                except (OSError, http.client.HTTPException) as error:
                    outcomes.append(f"lost: {error!r}")
                connection.close()

        connections = [http.client.HTTPConnection(where, timeout=30) for _ in range(4)]
        streams = [ask(connection, 40, stream=True) for connection in connections]
        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        probe = http.client.HTTPConnection(where, timeout=5)  # still accepted
        probe.request("GET", "/v2/health/ready")
        reply = probe.getresponse()
        assert (reply.status, reply.getheader("connection")) == (503, "close")
        texts = [stream.read() for stream in streams]
        for connection in (probe, *connections):
            connection.close()
        for caller in callers:
            caller.join()
        assert process.wait(30) == 0
    assert set(outcomes) == {"whole"}
    assert len(outcomes) > 50
    assert all(text.endswith(b"data: [DONE]\n\n") and b"39 " in text for text in texts)


def test_what_runs_longer_than_the_grace_is_told_so(upstream: str) -> None:
    with started(upstream, grace=1.0) as (process, where):
        connection = http.client.HTTPConnection(where, timeout=30)
        stream = ask(connection, 400, stream=True)
        answers: list[tuple[int, str | None, bytes]] = []

        def whole() -> None:
            other = http.client.HTTPConnection(where, timeout=30)
            reply = ask(other, 400, stream=False)
            answers.append((reply.status, reply.getheader("retry-after"), reply.read()))
            other.close()

        thread = threading.Thread(target=whole)
        thread.start()
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        text = stream.read()
        connection.close()
        thread.join()
        assert process.wait(30) == 0
        assert 0.9 < time.monotonic() - begin < 15
    *_, last = text.strip().split(b"\n\n")
    assert b"0 " in text
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the server is shutting down"
    ((status, wait, body),) = answers
    assert (status, wait) == (503, "1")
    assert json.loads(body)["error"]["message"] == "the server is shutting down"


def test_a_model_that_hangs_doesnt_keep_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    program = SAVED + PROGRAM
    command = [sys.executable, "-c", program, json.dumps({"grace": 0.5}), str(tmp_path / "slow")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        where = process.stdout.readline().strip().removeprefix("http://")
        connection = http.client.HTTPConnection(where, timeout=20)
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1060]}]}
        connection.request("POST", "/v2/models/slow/infer", json.dumps(body))
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 503
        connection.close()
        assert process.wait(30) == 0
        assert time.monotonic() - begin < 30
    finally:
        process.kill()
        process.communicate()


SAVED = """
import sys
from pathlib import Path
from tests.server.slow import save_slow
save_slow(Path(sys.argv[2]))
"""


def test_whatever_hangs_it_ends_and_says_where() -> None:
    with started("one=echo:", grace=0.0, stuck=60) as (process, _):
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert time.monotonic() - begin < 30
        assert process.stderr is not None
        assert "most recent call first" in process.stderr.read()


LOADING = """
import sys, time
import numpy as np
import torch
import aiaas_sdk as aiaas
from aiaas_sdk.server import serve

class Late(torch.nn.Module):
    loads = False
    def __init__(self):
        super().__init__()
        if Late.loads:
            print("loading", flush=True)
            time.sleep(60)
    def forward(self, x):
        return x * 1

aiaas.architecture("late")(Late)
aiaas.save(Late(), sys.argv[1], example=np.zeros((1, 1), np.float32), architecture="late")
Late.loads = True
serve([sys.argv[1]], port=0)
"""


def test_it_can_be_ended_while_it_loads(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING, str(tmp_path / "late")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
