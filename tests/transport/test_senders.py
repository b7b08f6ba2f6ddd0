"""Both senders against real sockets: kept, cut, dripping and compressed answers."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from typing import Any

import pytest

from aiaas_sdk.errors import (
    AddressError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
)
from aiaas_sdk.flow import Request
from tests.stopwatch import Stopwatch

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER 0: closing sends a reset


def hang_up_hard(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


# ---------------------------------------------------------------- answers
def test_chunked_answers_are_joined(serve: Any, send: Any, replying: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    reply = send(Request("GET", serve(replying(head, b"3\r\nabc\r\n", b"1\r\nd\r\n0\r\n\r\n"))))
    assert bytes(reply.body) == b"abcd"


def test_an_answer_without_a_length_ends_with_the_connection(serve: Any, send: Any, replying: Any) -> None:
    reply = send(Request("GET", serve(replying(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd"))))
    assert bytes(reply.body) == b"abcd"


def test_a_large_answer_is_received_whole_and_in_one_buffer(serve: Any, send: Any) -> None:
    body = bytes(range(256)) * (1 << 14)

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    reply = send(Request("GET", serve(answer)))
    assert reply.body == body
    assert isinstance(reply.body, memoryview)
    assert reply.body.contiguous


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200", OK[:-1], OK[:-2]])
def test_an_answer_that_stops_too_early_is_a_lost_connection(serve: Any, send: Any, replying: Any, cut: bytes) -> None:
    """N09."""
    with pytest.raises(ConnectionLostError):
        send(Request("GET", serve(replying(cut))))


def test_a_chunked_answer_without_its_last_chunk_is_a_lost_connection(serve: Any, send: Any, replying: Any) -> None:
    """N09."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with pytest.raises(ConnectionLostError):
        send(Request("GET", serve(replying(head))))


def test_a_reset_after_the_request_is_a_lost_connection(serve: Any, send: Any) -> None:
    """N08."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        hang_up_hard(connection)

    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1"):
        send(Request("POST", serve(answer), {}, (b"x" * 100,)))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\ncontent-length: 70368744177664\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"content-length: 0\r\n\r\n",
    ],
    ids=["ssh", "tls", "huge", "negative", "gzip", "long-header", "many-headers"],
)
def test_an_answer_that_is_none_is_a_protocol_error(serve: Any, send: Any, replying: Any, answer: bytes) -> None:
    """N05, N13, N14, N15."""
    with pytest.raises(ProtocolError):
        send(Request("GET", serve(replying(answer))))


@pytest.mark.parametrize("ends", [True, False])
def test_half_of_a_large_body_is_no_answer(serve: Any, send: Any, ends: bool) -> None:
    """N09, N10."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 8000000\r\n\r\n" + bytes(3_000_000))
        if not ends:
            connection.recv(65536)

    watch = Stopwatch()
    with pytest.raises(ConnectionLostError if ends else DeadlineExceededError):
        send(Request("GET", serve(answer)), 0.5)
    assert watch.took() < 0.75


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_as_the_body_comes_not_as_it_is_announced(serve: Any, send: Any, replying: Any) -> None:
    """N13."""
    before = resident()
    seen: list[float] = []

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 30) + bytes(100_000))
        time.sleep(0.2)
        seen.append(resident() - before)

    with pytest.raises(ConnectionLostError):
        send(Request("GET", serve(answer)))
    assert seen[0] < 16


def resident() -> float:
    """MiB of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def test_an_error_is_read_only_so_far(serve: Any, send: Any, replying: Any) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000
    reply = send(Request("GET", serve(replying(page))))
    assert reply.status == 502
    assert len(reply.body) == 65536


# ---------------------------------------------------------------- requests
def test_the_body_arrives_part_by_part(serve: Any, send: Any, taken: Any) -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        seen.append(taken(connection))
        connection.sendall(OK)

    send(Request("POST", serve(answer), {"X-A": "b"}, (b"one", memoryview(b"two"))))
    text = seen[0].lower()
    assert text.endswith(b"\r\n\r\nonetwo")
    assert b"content-length: 6" in text
    assert b"accept-encoding: identity" in text
    assert b"x-a: b" in text
    assert text.startswith(b"post / http/1.1\r\nhost: 127.0.0.1:")


def test_a_large_body_of_many_parts_arrives_whole(serve: Any, send: Any, taken: Any) -> None:
    parts = tuple(bytes([n]) * (n * 997 % 20_000 + 1) for n in range(256))
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        seen.append(taken(connection))
        connection.sendall(OK)

    send(Request("POST", serve(answer), {}, parts), 20)
    assert seen[0].partition(b"\r\n\r\n")[2] == b"".join(parts)


def test_a_refusal_is_heard_before_the_whole_body_was_sent(serve: Any, send: Any) -> None:
    heard = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 7\r\n\r\ntoo big")
        heard.wait(10)
        hang_up_hard(connection)

    reply = send(Request("POST", serve(answer), {}, (memoryview(bytes(1 << 26)),)))
    heard.set()
    assert (reply.status, bytes(reply.body)) == (413, b"too big")


@pytest.mark.parametrize(
    "header", [{"x": "a\r\nb: c"}, {"x y": "z"}, {"x": "ä"}, {"x": "a\0"}, {"": "a"}, {"x": "a" * 70_000}]
)
def test_a_header_that_http_cannot_carry_is_refused(send: Any, header: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        send(Request("GET", "http://127.0.0.1:9/", header))


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http:///x", "127.0.0.1", "http://127.0.0.1:99999/", "http://[::1"]
)
def test_an_address_of_another_kind_is_refused_without_repeating_it(send: Any, url: str) -> None:
    with pytest.raises(AddressError) as caught:
        send(Request("GET", url))
    assert url not in str(caught.value)


# ---------------------------------------------------------------- the deadline
def test_a_peer_that_drips_cannot_outlive_the_deadline(serve: Any, send: Any, replying: Any) -> None:
    """N11."""
    url = serve(replying(*[OK[i : i + 1] for i in range(len(OK))], pause=0.1))
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        send(Request("GET", url), 0.5)
    assert 0.45 < watch.took() < 0.75


def test_a_peer_that_does_not_read_cannot_outlive_the_deadline(serve: Any, send: Any) -> None:
    """N10."""
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        send(Request("POST", serve(lambda connection: time.sleep(2)), {}, (memoryview(bytes(1 << 26)),)), 0.4)
    assert watch.took() < 0.65


def test_a_peer_that_accepts_and_says_nothing_is_left_on_time(serve: Any, send: Any) -> None:
    """N10."""
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match="no whole answer"):
        send(Request("GET", serve(lambda connection: time.sleep(1))), 0.3)
    assert watch.took() < 0.55


# ---------------------------------------------------------------- reaching the peer
def test_nobody_listening_is_a_connect_error(send: Any) -> None:
    """N02."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}") as caught:
        send(Request("GET", f"http://127.0.0.1:{port}/"))
    assert caught.value.retryable


def test_a_name_that_does_not_resolve_is_a_connect_error_that_says_the_name(send: Any) -> None:
    """N01."""
    with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
        send(Request("GET", "http://nowhere.invalid/"))


def test_a_slow_resolver_cannot_outlive_the_deadline(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """N01."""
    real = socket.getaddrinfo

    def slow(host: str, *args: Any, **options: Any) -> Any:
        if not options.get("flags"):
            time.sleep(1)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match="no connection"):
        send(Request("GET", "http://localhost:9/"), 0.3)
    assert watch.took() < 0.55


def test_every_address_of_a_name_is_tried(server: Any, send: Any, replying: Any, monkeypatch: Any) -> None:
    port = server(replying(OK)).port
    real = socket.getaddrinfo

    def several(host: str, *args: Any, **options: Any) -> Any:
        if host != "several.test":
            return real(host, *args, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        return real("127.0.0.2", *args, **options) + real("::1", *args, **options) + real("127.0.0.1", *args)

    monkeypatch.setattr(socket, "getaddrinfo", several)
    assert send(Request("GET", f"http://several.test:{port}/")).status == 200


def test_a_full_accept_queue_ends_with_the_deadline(send: Any) -> None:
    """N03."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            send(Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"), 0.3)
        assert watch.took() < 0.55
        for one in crowd:
            one.close()


def test_a_connection_takes_five_seconds_at_most_also_without_a_deadline(send: Any, monkeypatch: Any) -> None:
    """N03."""
    monkeypatch.setattr("aiaas_sdk.transport.connecting.CONNECT_LIMIT", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        with pytest.raises(ConnectError):
            send.forever(Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        for one in crowd:
            one.close()
