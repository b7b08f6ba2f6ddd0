"""A server that follows a script byte for byte, and both senders behind one face."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport import AsyncHttpSender, HttpSender

Answer = Callable[[socket.socket], None]


class Server:
    """Runs `answer(connection)` in a thread of its own for each connection, at most 10,000. `seen` counts them,
    `open` those that are open, and `peak` is how many were open at once."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None, path: str | None = None) -> None:
        self.seen = self.open = self.peak = 0
        self._answer, self._context, self._guard = answer, context, threading.Lock()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.port: int = self._listener.getsockname()[1]
        else:
            self._listener, self.port = socket.socket(socket.AF_UNIX), 9
            self._listener.bind(path)
            self._listener.listen(128)
        threading.Thread(target=self._loop, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/"

    def _loop(self) -> None:
        for _ in range(10_000):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._guard:
                self.seen += 1
                self.open += 1
                self.peak = max(self.peak, self.open)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(10)
                if self._context is None:
                    self._answer(connection)
                    return
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self._answer(secured)
        except OSError:
            return
        finally:
            with self._guard:
                self.open -= 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(answer: Answer, context: ssl.SSLContext | None = None, path: str | None = None) -> Server:
        servers.append(Server(answer, context, path))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


@pytest.fixture
def serve(server: Callable[..., Server]) -> Callable[[Answer], str]:
    """The address of a server that follows a script."""
    return lambda answer: server(answer).url


class Face:
    """A sender with plain methods. `within` seconds bound each step."""

    def __init__(self, sender: Any, wait: Callable[[Any], Any]) -> None:
        self.sender, self.wait = sender, wait

    def __call__(self, request: Request, within: float = 5.0) -> Reply:
        return self.wait(self.sender.send(request, time.monotonic() + within))  # type: ignore[no-any-return]

    def forever(self, request: Request) -> Reply:
        return self.wait(self.sender.send(request, None))  # type: ignore[no-any-return]

    def open(self, request: Request, within: float = 5.0) -> Reply:
        return self.wait(self.sender.open(request, time.monotonic() + within))  # type: ignore[no-any-return]

    def read(self, reply: Reply, within: float = 5.0) -> bytes:
        return bytes(self.wait(self.sender.read(reply, time.monotonic() + within)))

    def release(self, reply: Reply) -> None:
        self.wait(self.sender.release(reply))


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Both senders: each test that takes it runs for both."""
    if request.param == "sync":
        plain = HttpSender()
        yield Face(plain, lambda outcome: outcome)
        plain.close()
        return
    awaited = AsyncHttpSender()
    with asyncio.Runner() as runner:

        async def wait(outcome: Any) -> Any:
            return await outcome

        yield Face(awaited, lambda outcome: runner.run(wait(outcome)))
    awaited.close()


@pytest.fixture
def replying() -> Callable[..., Answer]:
    """A script: read a request, send the pieces with a pause after each, hang up."""

    def script(*pieces: bytes, pause: float = 0.0) -> Answer:
        def answer(connection: socket.socket) -> None:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)

        return answer

    return script


@pytest.fixture
def answering() -> Callable[..., Answer]:
    """A script: answer every request on the connection in the same way, at most 1,000 of them."""

    def script(reply: bytes, pause: float = 0.0) -> Answer:
        def answer(connection: socket.socket) -> None:
            for _ in range(1000):
                if not taken(connection):
                    return
                time.sleep(pause)
                connection.sendall(reply)

        return answer

    return script


def taken(connection: socket.socket) -> bytes:
    """One whole request, head and body; empty where the peer hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body) if lengths else 0
    pieces = [data]
    while missing > 0:
        pieces.append(connection.recv(1 << 20))
        missing -= len(pieces[-1])
        if not pieces[-1]:
            return b""
    return b"".join(pieces)


@pytest.fixture(name="taken")
def _taken() -> Callable[[socket.socket], bytes]:
    return taken
