"""HTTP/2 against a real server: `h2` over TLS, which chooses the protocol."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2")
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError as H2Error

from aiaas_sdk.errors import ConnectionLostError, DeadlineExceededError, ProtocolError
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import AsyncHttpSender
from tests.stopwatch import Stopwatch
from tests.transport.test_proxied import Proxy
from tests.transport.test_tls import certificate, serving

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LENGTH = "inference-header-content-length"


class Spoken:
    """One connection's HTTP/2. `handle(self, stream, headers, body)` answers a request."""

    def __init__(self, connection: ssl.SSLSocket, handle: Callable[..., None]) -> None:
        self.connection, self._handle = connection, handle
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self._requests: dict[int, tuple[dict[bytes, bytes], bytearray]] = {}

    def serve(self) -> None:
        self.h2.initiate_connection()
        self.flush()
        while data := self.connection.recv(65536):
            try:
                for event in self.h2.receive_data(data):
                    self._take(event)
            except H2Error:  # the handler has ended the connection
                return
            self.flush()

    def _take(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self._requests[event.stream_id] = (dict(event.headers), bytearray())
        elif isinstance(event, DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._requests[event.stream_id][1].extend(event.data)
        elif isinstance(event, StreamEnded):
            self._handle(self, event.stream_id, *self._requests.pop(event.stream_id))

    def flush(self) -> None:
        self.connection.sendall(self.h2.data_to_send())

    def answer(self, stream: int, body: bytes, *fields: tuple[str, str], status: str = "200") -> None:
        self.h2.send_headers(stream, [(":status", status), ("content-length", str(len(body))), *fields])
        for start in range(0, len(body), 16384):
            self.h2.send_data(stream, body[start : start + 16384])
        self.h2.end_stream(stream)
        self.flush()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return certificate(tmp_path)


@pytest.fixture
def speaking(server: Any, file: Path) -> Callable[[Callable[..., None]], Any]:
    """A server that speaks HTTP/2 where the client offers it."""

    def start(handle: Callable[..., None]) -> Any:
        context = serving(file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return server(lambda connection: Spoken(connection, handle).serve(), context)

    return start


@pytest.fixture
def network(file: Path) -> Network:
    return Network(ca=file, http2=True)


def ok(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
    spoken.answer(stream, headers[b":method"] + b" " + headers[b":path"] + b" " + bytes(body))


def test_requests_go_over_one_connection_one_after_another(speaking: Any, send: Any, network: Network) -> None:
    one = speaking(ok)
    for number in range(5):
        reply = send(
            Request("POST", f"{one.url}x?n={number}", {"X-Key": "k"}, (b"a", memoryview(b"b")), network=network)
        )
        assert (reply.status, bytes(reply.body)) == (200, b"POST /x?n=%d ab" % number)
    assert bytes(send(Request("GET", one.url, network=network)).body) == b"GET / "
    assert one.seen == 1


def test_the_head_is_what_the_request_says(speaking: Any, send: Any, network: Network) -> None:
    seen: list[dict[bytes, bytes]] = []

    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        seen.append(headers)
        spoken.answer(stream, b"", ("x-one", "1"), ("x-one", "2"), status="503")

    one = speaking(handle)
    reply = send(Request("GET", f"{one.url}a", {"Authorization": "Bearer k"}, network=network))
    assert (reply.status, reply.headers["x-one"]) == (503, "1, 2")
    assert seen[0][b":authority"] == f"127.0.0.1:{one.port}".encode()
    assert (seen[0][b"authorization"], seen[0][b"accept-encoding"]) == (b"Bearer k", b"identity")


def test_large_bodies_go_both_ways_and_lie_aligned(speaking: Any, send: Any, network: Network) -> None:
    data, seen = os.urandom(600_000), list[bytes]()

    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        seen.append(bytes(body))
        spoken.answer(stream, data, (LENGTH, "7"))

    body = (b"head", memoryview(data))
    reply = send(Request("POST", speaking(handle).url, {}, body, align=LENGTH, network=network), 20)
    assert seen == [b"head" + data]
    assert reply.body == data


def test_streams_come_piece_by_piece(speaking: Any, send: Any, network: Network) -> None:
    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        spoken.h2.send_headers(stream, [(":status", "200")])
        spoken.h2.send_data(stream, b"one")
        spoken.flush()
        heard.wait(10)  # longer than the client has patience
        spoken.h2.send_data(stream, b"two", end_stream=True)
        spoken.flush()

    heard, one = threading.Event(), speaking(handle)
    for _ in range(2):
        heard.clear()
        reply = send.open(Request("GET", one.url, network=network))
        assert send.read(reply) == b"one"
        heard.set()
        assert (send.read(reply), send.read(reply)) == (b"two", b"")
        send.release(reply)
    assert one.seen == 1


def test_a_server_that_speaks_only_http_1_is_spoken_to_so(
    server: Any, send: Any, answering: Any, file: Path, network: Network
) -> None:
    one = server(answering(OK), serving(file))
    for _ in range(3):
        assert bytes(send(Request("GET", one.url, network=network)).body) == b"ok"
    assert one.seen == 1


def test_without_tls_it_is_http_1_over_our_own_connections(server: Any, send: Any, answering: Any) -> None:
    one = server(answering(OK))
    assert bytes(send(Request("GET", one.url, network=Network(http2=True))).body) == b"ok"


def test_without_the_option_it_is_not_offered(server: Any, send: Any, file: Path, taken: Any) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        assert connection.selected_alpn_protocol() == "http/1.1"
        taken(connection)
        connection.sendall(OK)

    context = serving(file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert send(Request("GET", server(answer, context).url, network=Network(ca=file))).status == 200


def test_it_goes_through_a_proxy_and_a_unix_socket_too(
    speaking: Any, server: Any, send: Any, file: Path, tmp_path: Path
) -> None:
    one = speaking(ok)
    proxy = Proxy(server)
    network = Network(ca=file, http2=True, proxy=proxy.url)
    for _ in range(2):
        assert bytes(send(Request("GET", one.url, network=network)).body) == b"GET / "
    assert len(proxy.heads) == 1
    context = serving(file)
    context.set_alpn_protocols(["h2"])
    path = str(tmp_path / "s")
    two = server(lambda connection: Spoken(connection, ok).serve(), context, path)
    for _ in range(2):
        request = Request("GET", "https://127.0.0.1/u", network=Network(ca=file, http2=True, unix_socket=path))
        assert bytes(send(request).body) == b"GET /u "
    assert two.seen == 1


# ---------------------------------------------------------------- failures
def test_n07_a_connection_that_the_server_ended_is_replaced(speaking: Any, send: Any, network: Network) -> None:
    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        ok(spoken, stream, headers, body)
        spoken.h2.close_connection()
        spoken.flush()

    one = speaking(handle)
    for number in range(1, 4):
        assert bytes(send(Request("GET", one.url, network=network)).body) == b"GET / "
        time.sleep(0.05)
        assert one.seen == number


@pytest.mark.parametrize("how", ["reset", "goaway", "cut", "cut body"])
def test_n08_an_answer_that_does_not_come_is_a_lost_connection(
    speaking: Any, send: Any, network: Network, how: str
) -> None:
    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        if how == "cut body":
            spoken.h2.send_headers(stream, [(":status", "200"), ("content-length", "9")])
            spoken.h2.send_data(stream, b"half")
        elif how == "reset":
            spoken.h2.reset_stream(stream)
        elif how == "goaway":
            spoken.h2.close_connection(last_stream_id=stream)
        spoken.flush()
        if how.startswith("cut"):
            spoken.connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(ConnectionLostError):
        send(Request("POST", speaking(handle).url, {}, (b"x",), idempotent=False, network=network))


@pytest.mark.parametrize("rubbish", [b"\0" * 50, b"\0\0\x04\x08" + b"\0" * 9])
def test_what_is_no_http2_is_a_protocol_error(
    server: Any, send: Any, file: Path, network: Network, rubbish: bytes
) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(rubbish)
        while connection.recv(65536):
            pass

    context = serving(file)
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ProtocolError):
        send(Request("GET", server(answer, context).url, network=network), 3)


def test_n14_packing_that_nobody_asked_for_is_refused(speaking: Any, send: Any, network: Network) -> None:
    one = speaking(lambda spoken, stream, headers, body: spoken.answer(stream, b"xx", ("content-encoding", "gzip")))
    with pytest.raises(ProtocolError, match="compressed"):
        send(Request("GET", one.url, network=network))


@pytest.mark.parametrize("part", ["head", "body"])
def test_n11_a_server_that_drips_cannot_outlive_the_deadline(
    speaking: Any, send: Any, network: Network, part: str
) -> None:
    ended = threading.Event()

    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        try:
            if part == "body":
                spoken.h2.send_headers(stream, [(":status", "200"), ("content-length", "100")])
            for _ in range(50):
                spoken.h2.send_data(stream, b"x") if part == "body" else spoken.h2.ping(b"12345678")
                spoken.flush()
                time.sleep(0.1)
        except OSError:
            ended.set()

    one = speaking(handle)
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        send(Request("GET", one.url, network=network), 0.5)
    assert watch.took() < 0.75
    assert ended.wait(10)


def test_x01_a_cancelled_call_comes_back_at_once_and_hangs_up(speaking: Any, network: Network) -> None:
    gone, sender = threading.Event(), AsyncHttpSender()

    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        spoken.flush()
        try:
            while spoken.connection.recv(65536):
                pass
        finally:
            gone.set()

    url = speaking(handle).url

    async def use() -> None:
        task = asyncio.create_task(sender.send(Request("GET", url, network=network), None))
        await asyncio.sleep(0.4)
        task.cancel()
        watch = Stopwatch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.took() < 0.1

    asyncio.run(use())
    assert gone.wait(10)
    sender.close()


def test_threads_and_loops_have_a_connection_each_and_their_own_answers(speaking: Any, network: Network) -> None:
    """X04: no request waits for another one's answer."""
    one, sender, wrong = speaking(ok), AsyncHttpSender(), list[bytes]()

    def work(name: int) -> None:
        async def use() -> None:
            for turn in range(10):
                word = f"{name}-{turn}".encode()
                request = Request("POST", one.url, {}, (word,), network=network)
                reply = await sender.send(request, time.monotonic() + 20)
                if bytes(reply.body) != b"POST / " + word:
                    wrong.append(word)

        asyncio.run(use())

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert one.seen <= 8
    sender.close()
