"""Opened replies: the head first, then piece by piece."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from aiaas_sdk.errors import ClosedError, ConnectionLostError, DeadlineExceededError, ProtocolError
from aiaas_sdk.flow import Request
from tests.stopwatch import Stopwatch
from tests.waiting import until

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: b\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def rest(send: Any, reply: Any) -> bytes:
    pieces = []
    while piece := send.read(reply):
        pieces.append(piece)
    return b"".join(pieces)


def test_the_head_comes_before_the_body_does(serve: Any, send: Any) -> None:
    headed = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED)
        headed.wait(10)  # longer than the client has patience
        connection.sendall(chunk(b"one") + chunk(b"two") + END)

    reply = send.open(Request("GET", serve(answer)))
    headed.set()
    assert (reply.status, reply.headers["x-a"], bytes(reply.body)) == (200, "b", b"")
    assert rest(send, reply) == b"onetwo"
    assert send.read(reply) == b""
    send.release(reply)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_sized_or_open_ended_body_can_be_read_too(serve: Any, send: Any, replying: Any, head: bytes) -> None:
    reply = send.open(Request("GET", serve(replying(head + b"one", b"two", b"six", pause=0.02))))
    assert rest(send, reply) == b"onetwosix"


def test_a_stream_read_to_its_end_gives_the_connection_back(server: Any, send: Any, answering: Any) -> None:
    one = server(answering(CHUNKED + chunk(b"data") + chunk(b"\n\n\n") + END))
    for _ in range(20):
        reply = send.open(Request("GET", one.url))
        assert rest(send, reply) == b"data\n\n\n"
        send.release(reply)
    assert one.seen == 1


def test_a_stream_left_early_closes_the_connection(server: Any, send: Any) -> None:
    ends: list[float] = []

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED + chunk(b"one"))
        connection.recv(65536)
        ends.append(time.monotonic())

    reply = send.open(Request("GET", server(answer).url))
    assert send.read(reply) == b"one"
    watch, released = Stopwatch(), time.monotonic()
    send.release(reply)
    until(lambda: ends)
    assert watch.took(ends[0] - released) < 0.2
    with pytest.raises(ClosedError):
        send.read(reply)


def test_a_stream_that_is_cut_is_a_lost_connection_after_what_came(serve: Any, send: Any, replying: Any) -> None:
    reply = send.open(Request("GET", serve(replying(CHUNKED + chunk(b"one")))))
    assert send.read(reply) == b"one"
    with pytest.raises(ConnectionLostError):
        send.read(reply)


def test_a_silent_stream_is_left_on_time(serve: Any, send: Any) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED)
        connection.recv(65536)

    reply = send.open(Request("GET", serve(answer)))
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        send.read(reply, 0.3)
    assert 0.25 < watch.took() < 0.5
    send.release(reply)


def test_chunk_headers_that_drip_are_no_piece(serve: Any, send: Any, replying: Any) -> None:
    reply = send.open(Request("GET", serve(replying(CHUNKED, *[bytes([c]) for c in chunk(b"abc")], pause=0.1))))
    with pytest.raises(DeadlineExceededError):
        send.read(reply, 0.25)


def test_rubbish_between_chunks_is_a_protocol_error(serve: Any, send: Any, replying: Any) -> None:
    reply = send.open(Request("GET", serve(replying(CHUNKED, b"zz\r\n", pause=0.05))))
    with pytest.raises(ProtocolError):
        send.read(reply)
