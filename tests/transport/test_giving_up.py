"""Calls that are given up in every stage: cancelled in an event loop (X01), by Ctrl-C in a thread (X02).

Giving up while waiting for a place is in test_places.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aiaas_sdk.errors import DeadlineExceededError
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import AsyncHttpSender, HttpSender, awaited, plain
from tests.stopwatch import Stopwatch
from tests.transport.test_tls import certificate

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SAID = {
    "sending": b"",
    "silent": b"",
    "head": b"HTTP/1.1 200 OK\r\nconte",
    "body": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
    "chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
}


class Stage(NamedTuple):
    """A request that gets so far and no further; `gone` is set when the server has seen that it was given up."""

    request: Request
    gone: threading.Event | None


@pytest.fixture(params=["resolving", "connecting", "handshake", *SAID])
def stage(request: pytest.FixtureRequest, server: Any, tmp_path: Path, monkeypatch: Any) -> Iterator[Stage]:
    name, network = request.param, Network(connections=1, ca=certificate(tmp_path))
    if name == "connecting":
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            crowd = [socket.socket() for _ in range(4)]
            for one in crowd:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            time.sleep(0.05)
            yield Stage(Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", network=network), None)
            for one in crowd:
                one.close()
        return
    gone = threading.Event()

    def answer(connection: socket.socket) -> None:
        if name == "sending":
            time.sleep(0.5)
        else:
            connection.recv(65536)
        try:
            connection.sendall(SAID.get(name, b""))
            while connection.recv(1 << 20):
                pass
        finally:
            gone.set()

    url = server(answer).url
    if name == "resolving":
        hung(monkeypatch)
        yield Stage(Request("GET", url.replace("127.0.0.1", "localhost"), network=network), None)
    elif name == "handshake":
        yield Stage(Request("GET", url.replace("http", "https"), network=network), gone)
    else:
        body = (memoryview(bytes(1 << 26)),) if name == "sending" else ()
        yield Stage(Request("POST", url, {}, body, network=network), gone)


def hung(monkeypatch: Any) -> None:
    """From now on no name resolves within half a second."""
    real = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        if not options.get("flags"):
            time.sleep(0.5)
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_x01_a_cancelled_call_comes_back_at_once_hangs_up_and_gives_its_place_back(stage: Stage) -> None:
    sender = AsyncHttpSender()

    async def use() -> None:
        task = asyncio.create_task(sender.send(stage.request, None))
        await asyncio.sleep(0.2)
        task.cancel("enough")
        await asyncio.sleep(0)
        task.cancel("twice")
        watch = Stopwatch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.took() < 0.1
        with pytest.raises(DeadlineExceededError) as caught:  # as far as the first one came, so it has the one place
            await sender.send(stage.request, soon(0.1))
        assert "waiting for a connection" not in str(caught.value)

    asyncio.run(use())
    assert stage.gone is None or stage.gone.wait(10)
    sender.close()


def test_x02_ctrl_c_comes_through_at_once_and_the_sender_works_on(stage: Stage, server: Any, answering: Any) -> None:
    sender, one = HttpSender(), server(answering(OK))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    watch = Stopwatch()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sender.send(stage.request, None)
    assert watch.took() < 0.5
    assert stage.gone is None or stage.gone.wait(10)
    with pytest.raises(DeadlineExceededError) as caught:
        sender.send(stage.request, soon(0.1))
    assert "waiting for a connection" not in str(caught.value)
    assert bytes(sender.send(Request("GET", one.url), soon(5)).body) == b"ok"
    sender.close()


@pytest.mark.parametrize("face", [plain.perform, lambda steps: asyncio.run(awaited.perform(steps))])
def test_x02_steps_are_ended_wherever_ctrl_c_comes(face: Any) -> None:
    class Interrupted:
        closed = False

        def __next__(self) -> Any:
            raise KeyboardInterrupt

        def close(self) -> None:
            self.closed = True

    steps = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        face(steps)
    assert steps.closed


@pytest.mark.parametrize("stage", ["silent", "body"], indirect=True)
def test_x01_leaving_a_stream_in_a_cancelled_task_hangs_up(stage: Stage) -> None:
    sender = AsyncHttpSender()

    async def stream() -> None:
        reply = await sender.open(stage.request, None)
        try:
            while await sender.read(reply, None):
                pass
        finally:
            await sender.release(reply)

    async def use() -> None:
        task = asyncio.create_task(stream())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())
    assert stage.gone is not None
    assert stage.gone.wait(10)
    sender.close()
