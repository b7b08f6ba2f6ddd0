"""What isn't HTTP, or isn't quick enough, on real connections; with httptools and with h11."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest

from aiaas_sdk.server import connections, running
from tests.stopwatch import Stopwatch

HEAD = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(params=["httptools", "h11"])
def client(request: pytest.FixtureRequest, serving: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    kind = connections.protocol_class() if request.param == "httptools" else connections._OnH11
    monkeypatch.setattr(running, "protocol_class", lambda: kind)
    return serving("one=echo:?x=FP32[-1,3]")


def test_an_ordinary_request_is_answered(client: Any) -> None:
    assert client("GET", "/v2").status == 200
    assert client("POST", "/v2/models/one/infer", b"{}").status == 400
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        HEAD + b"a b: c\r\n\r\n",
        HEAD + b"name : value\r\n\r\n",
        HEAD + b"name: val\0ue\r\n\r\n",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: 2, 40\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_isnt_http_is_refused_and_the_connection_closed(client: Any, data: bytes) -> None:
    came = client.send(data, 3)
    assert not came or came.split(b" ")[1] in (b"400", b"404", b"501")
    if not data.startswith(b"PRI"):  # which is a request and rubbish behind it to some
        assert came.count(b"HTTP/1.1 ") <= 1
    if came:
        assert b"content-type: application/json\r\n" in came
        assert b'{"error":' in came
    assert client("GET", "/v2").status == 200


def test_a_folded_line_is_refused_or_one_line(client: Any, request: pytest.FixtureRequest) -> None:
    """RFC 9112 5.2 lets a server do either: h11, which serves where there is no httptools, takes it for a blank."""
    came = client.send(POST + b"x: y\r\n Content-Length: 40\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", 3)
    assert came.count(b"HTTP/1.1 ") == 1
    assert came.split(b" ")[1] == b"400"  # h11 reads the two bytes, which are no request of the model's
    assert (b"inputs" in came) == ("h11" in request.node.name)
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"x: " + b"a" * 200_000,
        HEAD + b"x: y\r\n" * 20_000,
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["header", "headers", "target"],
)
def test_a_head_without_end_is_cut_off(client: Any, data: bytes) -> None:
    came = client.send(data, 3)
    assert not came or came.split(b" ")[1] in (b"400", b"414", b"431")
    assert client("GET", "/v2").status == 200


def test_a_long_but_allowed_head_is_taken(client: Any) -> None:
    assert client("GET", "/v2", headers={f"x-{n}": "v" * 500 for n in range(30)}).status == 200


def test_a_large_body_beside_the_head_isnt_taken_for_head(client: Any) -> None:
    body = b" " * 300_000 + b"{}"
    came = client.send(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert came.startswith(b"HTTP/1.1 400 ")
    assert b"inputs" in came


def test_requests_one_behind_the_other_are_answered_in_order(client: Any) -> None:
    came = client.send(HEAD + b"\r\n" + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert came.index(b"HTTP/1.1 200") < came.index(b"HTTP/1.1 404")


def test_http_1_0_is_answered_and_closed(client: Any) -> None:
    came = client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n", 3)
    assert b" 200 OK\r\n" in came
    assert came.endswith(b'{"live":true}')


@pytest.mark.slow
@pytest.mark.parametrize("begun", [b"", b"GET /v2 HT"], ids=["silent", "slow head"])
def test_a_head_that_doesnt_come_ends_the_connection(
    client: Any, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    with socket.create_connection((client.host, client.port), timeout=10) as stream:
        stream.sendall(begun)
        watch = Stopwatch()
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(100) == b""
        assert 0.5 < watch.took() < 4
    assert client("GET", "/v2").status == 200


@pytest.mark.slow
def test_a_body_that_trickles_ends_the_connection(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 1.0)
    with socket.create_connection((client.host, client.port), timeout=10) as stream:
        stream.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        start = time.monotonic()
        with contextlib.suppress(OSError):  # reset or broken pipe, as it happens
            while time.monotonic() - start < 8:
                stream.sendall(b" ")
                time.sleep(0.1)
        assert time.monotonic() - start < 5


@pytest.mark.slow
def test_an_idle_connection_is_kept(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    assert client("GET", "/v2").status == 200
    time.sleep(2.5)
    client.connection.auto_open = 0
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize("line", [b"GET /v2\r\n\r\n", b"GET /v2 HTTP/0.9\r\n\r\n", b"GET /v2 HTTP/2.0\r\n\r\n"])
def test_a_request_of_another_version_is_refused(client: Any, line: bytes) -> None:
    """HTTP/0.9 has no versions and no heads: its answer would be a bare body."""
    came = client.send(line, 3)
    assert came.startswith(b"HTTP/1.1 400 ")
    assert came.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in came.lower()
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize("ends", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"], ids=["close", "1.0"])
@pytest.mark.parametrize(("path", "status"), [("/v2/models/nobody/infer", b"404"), ("/v2/models/one", b"405")])
def test_who_ends_the_connection_may_send_all_before_he_is_answered(
    client: Any, path: str, status: bytes, ends: str
) -> None:
    """Closed with bytes unread, it would be reset, and whoever still sends would lose the answer."""
    pieces = [bytes(200_000)] * 4
    head = f"POST {path} {ends}\r\nHost: localhost\r\nContent-Length: {sum(map(len, pieces))}\r\n\r\n".encode()
    for _ in range(3):
        with socket.create_connection((client.host, client.port), timeout=10) as stream:
            came = b""
            for piece in (head, *pieces):
                stream.sendall(piece)
                time.sleep(0.01)
            while more := stream.recv(65536):
                came += more
        assert came.split(b" ")[1] == status
        assert came.lower().count(b"connection: close") == 1
        assert came.endswith(b"}")


def test_nobody_waits_for_a_body_that_was_read(client: Any) -> None:
    watch = Stopwatch()
    for _ in range(3):
        came = client.send(POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        assert came.split(b" ")[1] == b"400"
    assert watch.took() < 1
