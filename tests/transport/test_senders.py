"""Both senders against real sockets: kept, cut, dripping and compressed answers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiaas_sdk.errors import ConfigError, ConnectionLostError, DeadlineExceededError, ProtocolError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport import AsyncHttpSender, HttpSender

Serve = Callable[[Callable[[socket.socket], None]], str]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Runs `answer(connection)` for each connection, at most 20; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def loop(answer: Callable[[socket.socket], None]) -> None:
        for _ in range(20):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:
                    continue

    def start(answer: Callable[[socket.socket], None]) -> str:
        threading.Thread(target=loop, args=(answer,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    listener.close()


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Iterator[Callable[..., Reply]]:
    if request.param == "sync":
        sender = HttpSender()
        yield lambda sent, until=None: sender.send(sent, until)
        sender.close()
        return
    yield lambda sent, until=None: asyncio.run(AsyncHttpSender().send(sent, until))


def replying(*pieces: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return answer


def test_a_connection_that_the_peer_closed_is_replaced_silently(serve: Serve) -> None:
    sender, url = HttpSender(), serve(replying(OK))
    for _ in range(5):
        assert bytes(sender.send(Request("GET", url), time.monotonic() + 5).body) == b"ok"
        time.sleep(0.05)
    sender.close()


def test_chunked_answers_are_joined(serve: Serve, send: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    reply = send(Request("GET", serve(replying(head, b"3\r\nabc\r\n", b"1\r\nd\r\n0\r\n\r\n"))))
    assert bytes(reply.body) == b"abcd"


def test_the_body_arrives_part_by_part(serve: Serve, send: Any) -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while b"onetwo" not in b"".join(seen):
            seen.append(connection.recv(65536))
        connection.sendall(OK)

    send(Request("POST", serve(answer), {"X-A": "b"}, (b"one", memoryview(b"two"))), time.monotonic() + 5)
    text = b"".join(seen).lower()
    assert b"content-length: 6" in text
    assert b"accept-encoding: identity" in text
    assert b"x-a: b" in text


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200", OK[:-1]])
def test_an_answer_that_stops_too_early_is_a_lost_connection(serve: Serve, send: Any, cut: bytes) -> None:
    with pytest.raises(ConnectionLostError):
        send(Request("GET", serve(replying(cut))), time.monotonic() + 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 70368744177664\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
    ],
)
def test_an_answer_that_is_none_is_a_protocol_error(serve: Serve, send: Any, answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        send(Request("GET", serve(replying(answer))), time.monotonic() + 5)


def test_a_peer_that_drips_cannot_outlive_the_deadline(serve: Serve, send: Any) -> None:
    url = serve(replying(*[OK[i : i + 1] for i in range(len(OK))], pause=0.1))
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        send(Request("GET", url), begun + 0.5)
    assert time.monotonic() - begun < 0.75


def test_a_header_with_a_line_break_is_refused(send: Any) -> None:
    with pytest.raises(ConfigError):
        send(Request("GET", "http://127.0.0.1:9/", {"x": "a\r\nb: c"}))
