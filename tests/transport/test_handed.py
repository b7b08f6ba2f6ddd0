"""Transports that the user hands in, of httpx and of httpx2, plain and for event loops."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aiaas_sdk.errors import (
    AiaasError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
)
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import AsyncHttpSender, HttpSender, check
from tests.stopwatch import Stopwatch

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
WHERE = "http://models.test/x?y=1"
DATA = bytes(range(256)) * 4096


@pytest.fixture(params=["httpx", "httpx2"])
def httpx(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


@pytest.fixture
def mock(httpx: Any) -> Callable[[Callable[[Any], Any]], Network]:
    """A network whose transport answers by a function of its own: for both faces."""
    return lambda handle: Network(transport=httpx.MockTransport(handle))


@pytest.fixture
def real(httpx: Any, send: Any) -> Iterator[Network]:
    """A network with httpx's own transport, of the colour of the sender. Who made it closes it."""
    plain = isinstance(send.sender, HttpSender)
    transport = httpx.HTTPTransport() if plain else httpx.AsyncHTTPTransport()
    yield Network(transport=transport)
    transport.close() if plain else send.wait(transport.aclose())


# ---------------------------------------------------------------- carried
def test_requests_and_replies_are_carried_as_they_are(httpx: Any, send: Any, mock: Any) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append((request.method, str(request.url), request.headers, request.content))
        return httpx.Response(201, headers=[("X-A", "1"), ("X-A", "2")], content=b"ok")

    reply = send(Request("POST", WHERE, {"X-Key": "k"}, (b"one", memoryview(b"two")), network=mock(handle)))
    assert (reply.status, reply.headers["x-a"], bytes(reply.body)) == (201, "1, 2", b"ok")
    method, url, headers, body = seen[0]
    assert (method, url, body) == ("POST", WHERE, b"onetwo")
    assert (headers["host"], headers["x-key"], headers["content-length"]) == ("models.test", "k", "6")
    assert headers["accept-encoding"] == "identity"


def test_httpxs_own_transport_keeps_its_connections_and_large_bodies_lie_aligned(
    server: Any, send: Any, taken: Any, real: Network
) -> None:
    name = "inference-header-content-length"
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            seen.append(request.partition(b"\r\n\r\n")[2])
            head = b"HTTP/1.1 200 OK\r\n%s: 7\r\ncontent-length: %d\r\n\r\n" % (name.encode(), len(DATA))
            connection.sendall(head + DATA)

    one = server(answer)
    for _ in range(3):
        reply = send(Request("POST", one.url, {}, (b"head", memoryview(DATA)), align=name, network=real), 20)
        assert reply.body == DATA
    assert seen == [b"head" + DATA] * 3
    assert one.seen == 1


def test_streams_come_piece_by_piece_and_may_be_left(server: Any, send: Any, real: Network) -> None:
    heard, gone = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        heard.wait(10)  # longer than the client has patience
        connection.sendall(b"3\r\ntwo\r\n")
        if not connection.recv(65536):
            gone.set()

    reply = send.open(Request("GET", server(answer).url, network=real))
    assert send.read(reply) == b"one"
    heard.set()
    assert send.read(reply) == b"two"
    send.release(reply)
    assert gone.wait(10)


def test_an_application_in_this_process_answers_event_loops(httpx: Any) -> None:
    async def app(scope: Any, receive: Any, sent: Any) -> None:
        body = (await receive())["body"]
        await sent({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["path"].encode())]})
        await sent({"type": "http.response.body", "body": body * 2})

    sender = AsyncHttpSender()
    network = Network(transport=httpx.ASGITransport(app))
    reply = asyncio.run(sender.send(Request("POST", WHERE, {}, (b"ab",), network=network), time.monotonic() + 5))
    assert (reply.headers["x-path"], bytes(reply.body)) == ("/x", b"abab")


def test_a_plain_transport_serves_event_loops_too_in_a_thread(httpx: Any, send: Any) -> None:
    class Own(httpx.BaseTransport):  # type: ignore[misc,name-defined]  # the class of whichever is tested
        def handle_request(self, request: Any) -> Any:
            time.sleep(0.05)
            return httpx.Response(200, content=threading.current_thread().name.encode())

    assert bytes(send(Request("GET", WHERE, network=Network(transport=Own()))).body) == b"aiaas-transport"


def test_a_transport_for_event_loops_has_no_use_without_one(httpx: Any) -> None:
    network = Network(transport=httpx.AsyncHTTPTransport())
    check(network)
    with pytest.raises(ConfigError, match="load_async"):
        HttpSender().send(Request("GET", WHERE, network=network), None)


@pytest.mark.parametrize(("what", "kind"), [(object(), "an object"), ("httpx", "a str"), (socket.socket, "a type")])
def test_what_is_no_transport_is_told_by_load(what: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"network\.transport is {kind}\."):
        check(Network(transport=what))


def test_a_client_is_no_transport(httpx: Any) -> None:
    with httpx.Client() as client, pytest.raises(ConfigError, match="is a Client"):
        check(Network(transport=client))


def test_a_limit_of_connections_is_one_of_requests(httpx: Any) -> None:
    """N06."""
    now, most, guard = 0, 0, threading.Lock()

    class Own(httpx.BaseTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            nonlocal now, most
            with guard:
                now += 1
                most = max(now, most)
            time.sleep(0.01)
            with guard:
                now -= 1
            return httpx.Response(200)

    request, sender = Request("GET", WHERE, network=Network(transport=Own(), connections=3)), HttpSender()
    threads = [threading.Thread(target=sender.send, args=(request, time.monotonic() + 10)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_nobody_closes_what_the_user_opened(httpx: Any, send: Any) -> None:
    class Own(httpx.MockTransport):  # type: ignore[misc,name-defined]
        closed = False

        def close(self) -> None:
            self.closed = True

        async def aclose(self) -> None:
            self.closed = True

    transport = Own(lambda request: httpx.Response(200))
    for _ in range(2):
        send(Request("GET", WHERE, network=Network(transport=transport)))
    send.sender.close()
    assert not transport.closed


# ---------------------------------------------------------------- failures
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ConnectError", ConnectError),
        ("ConnectTimeout", ConnectError),
        ("ReadError", ConnectionLostError),
        ("WriteError", ConnectionLostError),
        ("CloseError", ConnectionLostError),
        ("ReadTimeout", DeadlineExceededError),
        ("WriteTimeout", DeadlineExceededError),
        ("PoolTimeout", DeadlineExceededError),
        ("ProxyError", ConnectError),
        ("UnsupportedProtocol", ConfigError),
        ("RemoteProtocolError", ProtocolError),
        ("LocalProtocolError", ConfigError),
    ],
)
def test_no_class_of_httpxs_comes_out(httpx: Any, send: Any, mock: Any, name: str, expected: type[AiaasError]) -> None:
    def handle(request: Any) -> Any:
        raise getattr(httpx, name)("what it said")

    with pytest.raises(expected) as caught:
        send(Request("GET", WHERE, network=mock(handle)))
    assert type(caught.value) is expected
    assert caught.value.__cause__ is None
    if name == "PoolTimeout":
        assert "waiting for a connection" in str(caught.value)


def test_every_failure_of_httpxs_transports_is_one_of_ours(httpx: Any, mock: Any) -> None:
    sender = HttpSender()
    kinds = [kind for kind in vars(httpx).values() if isinstance(kind, type) and issubclass(kind, httpx.TransportError)]
    assert len(kinds) > 10
    for kind in kinds:

        def handle(request: Any, kind: Any = kind) -> Any:
            raise kind("what it said")

        with pytest.raises(AiaasError):
            sender.send(Request("GET", WHERE, network=mock(handle)), time.monotonic() + 5)


def test_an_error_of_the_transports_own_code_is_told_and_kept_as_the_cause(httpx: Any, send: Any, mock: Any) -> None:
    def handle(request: Any) -> Any:
        raise KeyError("x")

    with pytest.raises(ConfigError, match="KeyError") as caught:
        send(Request("GET", WHERE, network=mock(handle)))
    assert isinstance(caught.value.__cause__, KeyError)
    assert not caught.value.retryable


def body_of(httpx: Any, *pieces: bytes) -> Any:
    """A stream for both colours that nobody checks against the head."""

    class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    return Pieces()


def test_n09_a_body_shorter_than_its_head_says_is_a_lost_connection(httpx: Any, send: Any, mock: Any) -> None:
    network = mock(lambda _: httpx.Response(200, headers={"content-length": "9"}, stream=body_of(httpx, b"half")))
    with pytest.raises(ConnectionLostError):
        send(Request("GET", WHERE, network=network))


def test_a_body_of_unknown_length_is_joined(httpx: Any, send: Any, mock: Any) -> None:
    network = mock(lambda _: httpx.Response(200, stream=body_of(httpx, b"one", b"two")))
    assert bytes(send(Request("GET", WHERE, network=network)).body) == b"onetwo"


def test_n13_n14_what_is_packed_or_too_large_is_refused(httpx: Any, send: Any, mock: Any) -> None:
    for headers in ({"content-encoding": "gzip"}, {"content-length": "99999999999"}):
        network = mock(lambda _, headers=headers: httpx.Response(200, headers=headers, stream=body_of(httpx, b"xx")))
        with pytest.raises(ProtocolError):
            send(Request("GET", WHERE, network=network))


@pytest.mark.parametrize("part", ["head", "body"])
def test_n11_a_server_that_drips_cannot_outlive_the_deadline(server: Any, send: Any, real: Network, part: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        data = OK if part == "head" else b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
        if part == "body":
            connection.sendall(data)
        for at in range(15):
            connection.sendall(data[at : at + 1])
            time.sleep(0.1)

    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        send(Request("GET", server(answer).url, network=real), 0.4)
    assert watch.took() < 0.65


def test_x01_a_cancelled_call_comes_back_at_once_and_its_reply_is_closed(httpx: Any, server: Any) -> None:
    gone, sender = threading.Event(), AsyncHttpSender()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        if not connection.recv(65536):
            gone.set()

    url = server(answer).url

    async def use() -> None:
        transport = httpx.AsyncHTTPTransport()
        network = Network(transport=transport, connections=1)
        task = asyncio.create_task(sender.send(Request("GET", url, network=network), None))
        await asyncio.sleep(0.2)
        task.cancel()
        watch = Stopwatch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.took() < 0.1
        assert await asyncio.to_thread(gone.wait, 10)
        with pytest.raises(DeadlineExceededError, match="no whole answer"):  # its place is free again
            await sender.send(Request("GET", url, network=network), time.monotonic() + 0.2)
        await transport.aclose()

    asyncio.run(use())


def test_x04_a_transport_of_a_loop_that_has_gone_is_told_in_our_words(httpx: Any) -> None:
    class Own(httpx.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        loop: Any = None

        async def handle_async_request(self, request: Any) -> Any:
            self.loop = self.loop or asyncio.get_running_loop()
            self.loop.call_soon(int)
            return httpx.Response(200)

    sender, request = AsyncHttpSender(), Request("GET", WHERE, network=Network(transport=Own()))

    async def fetch() -> int:
        return (await sender.send(request, time.monotonic() + 5)).status

    assert asyncio.run(fetch()) == 200
    with pytest.raises(ConfigError, match="one event loop only") as caught:
        asyncio.run(fetch())
    assert "Event loop is closed" not in str(caught.value)
