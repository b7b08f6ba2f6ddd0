"""What one request consists of is never taken for another one, and nobody's requests are kept without end."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from typing import Any

import pytest
import uvicorn

from aiaas_sdk.server import connections, create_app
from tests.server.lab import GATE
from tests.server.process import Server
from tests.server.test_overflow import WAITING, Talk, infer

MANY = 6_000
"""Requests, of which each takes two KiB while it is kept."""
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def client(serving: Any) -> Any:
    return serving("other=echo:")


def test_an_empty_line_may_come_alone_before_a_request(client: Any) -> None:
    with Talk(client) as talk:
        for _ in range(3):
            talk.say(b"\r\n", infer(name="other"))
            assert talk.answer()[0] == 200


@pytest.mark.parametrize("length", [10**18, 10**18 + 5, 2**63])
@pytest.mark.parametrize("begun", [0, 1000, 20_000])
def test_a_length_of_too_many_digits_is_refused(client: Any, caplog: Any, length: int, begun: int) -> None:
    head = f"POST /v2/models/other/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    with Talk(client) as talk:
        status, headers, body = talk.ask(head.encode(), b"x" * begun)
    assert status == 400
    assert json.loads(body) == {"error": "the header Content-Length is no length"}
    assert headers["connection"] == "close"
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 1), (1, 150), (1, 1 << 20), (3000, 150), (3000, 10_000), (3000, 1 << 20), (70_000, 1 << 20)]
)
def test_who_would_like_another_protocol_is_answered_in_this_one(client: Any, size: int, rows: int) -> None:
    """As curl's --http2 and Java's client ask first."""
    said = b""
    for line in ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", "X: y"):
        said += infer(0, rows, "other", line) + LIVE.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode())
    with Talk(client) as talk:
        for at in range(0, len(said), size):
            talk.say(said[at : at + size])
        for _ in range(2):
            status, headers, body = talk.answer()
            assert status == 200
            assert "connection" not in headers
            assert json.loads(body)["outputs"][0]["shape"] == [rows, 2]
            assert talk.answer()[0] == 200


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("line", ["Transfer-Encoding: chunked", "Content-Length: 2000000"])
def test_a_body_whose_end_nobody_finds_ends_the_connection(client: Any, apart: bool, line: str) -> None:
    lines = f"Host: localhost\r\n{line}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    head = b"POST /v2/models/other/infer HTTP/1.1\r\n" + lines.encode()
    with Talk(client) as talk:
        came = b""
        with contextlib.suppress(ConnectionError):
            talk.say(*((head, LIVE, LIVE) if apart else (head + LIVE + LIVE,)))
            while piece := talk.stream.recv(65536):
                came += piece
    assert came.count(b"HTTP/1.1 ") <= 1
    assert b"HTTP/1.1 200" not in came


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("request_", [LIVE, infer(name="one")], ids=["get", "infer"])
def test_requests_behind_one_another_wait_outside(request_: bytes) -> None:
    """Each answer, and each look whether the client has left, let more of them in than it ended."""
    server = Server("one=echo:?x=FP32[-1,2]", patience=20.0)
    try:
        with server.connect() as stream:
            _said(stream, request_ * 100, 100)
            before = server.memory()
            _said(stream, request_ * MANY, MANY)
        assert server.memory() - before < MANY / 1500, "MiB"
    finally:
        server.close()


def _said(stream: socket.socket, data: bytes, answers: int) -> None:
    """Say it, while the answers are read."""
    found = [0]

    def read() -> None:
        came = b""
        while found[0] < answers and (piece := stream.recv(1 << 20)):
            *whole, came = (came + piece).split(b"HTTP/1.1 200 OK\r\n")
            found[0] += len(whole)

    reading = threading.Thread(target=read)
    reading.start()
    stream.sendall(data)
    reading.join()
    assert found[0] == answers


def test_the_head_that_nobody_reads_isnt_late(serving: Any, lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(connections, "_LOOK", 0.1)
    client = serving(f"slow={lab}", "other=echo:")
    GATE.clear()
    with Talk(client) as talk:
        talk.say(infer(WAITING) + infer(name="other") + LIVE[:20])
        time.sleep(1.4)
        GATE.set()
        assert [talk.answer()[0] for _ in range(2)] == [200, 200]
        talk.say(LIVE[20:])
        assert talk.answer()[0] == 200


def test_other_servers_know_what_it_speaks() -> None:
    config = uvicorn.Config(create_app(["echo:"]), log_config=None)
    config.load()
    assert config.interface == "asgi3"
