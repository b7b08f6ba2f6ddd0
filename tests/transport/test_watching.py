"""Opened replies in an event loop: one registration of the socket for all pieces, and none that outlives it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from typing import Any

import pytest

from aiaas_sdk.errors import DeadlineExceededError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport import AsyncHttpSender
from tests.stopwatch import Stopwatch

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ONE = b"3\r\none\r\n"
END = b"0\r\n\r\n"


class Loop(asyncio.SelectorEventLoop):
    """Counts how often a socket is registered."""

    registered = 0

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        self.registered += 1
        return super().add_reader(fd, callback, *args)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def opened(sender: AsyncHttpSender, url: str) -> Reply:
    return await sender.open(Request("GET", url), soon())


def speaking(times: int, pause: float = 0.002) -> Any:
    """A script: as many pieces, each alone, then the end."""

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(1000):
            if not connection.recv(65536):
                return
            connection.sendall(CHUNKED)
            for _ in range(times):
                time.sleep(pause)
                connection.sendall(ONE)
            connection.sendall(END)

    return answer


async def whole(sender: AsyncHttpSender, reply: Reply) -> bytes:
    pieces = []
    while piece := await sender.read(reply, soon()):
        pieces.append(bytes(piece))
    return b"".join(pieces)


def test_a_stream_registers_its_socket_once(serve: Any) -> None:
    url, sender = serve(speaking(100)), AsyncHttpSender()
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop: Any = runner.get_loop()
        for _ in range(2):
            reply = runner.run(opened(sender, url))
            before = loop.registered
            assert runner.run(whole(sender, reply)) == b"one" * 100
            assert loop.registered - before < 10
            assert not loop._selector.get_map().keys() - {loop._ssock.fileno()}
    sender.close()


def test_nobody_reads_nothing_is_kept_and_the_loop_rests(server: Any) -> None:
    sent = [0]

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED)
        time.sleep(0.05)
        piece = b"10000\r\n" + bytes(65536) + b"\r\n"
        for _ in range(1000):
            connection.sendall(piece)
            sent[0] += 65536

    async def read() -> None:
        sender = AsyncHttpSender()
        reply = await opened(sender, server(answer).url)
        assert await sender.read(reply, soon())
        filled = -1
        for _ in range(50):  # the buffers of both systems fill
            if filled == sent[0]:
                break
            filled = sent[0]
            await asyncio.sleep(0.2)
        begun = time.thread_time()
        await asyncio.sleep(0.2)
        assert sent[0] == filled < 32 * 2**20
        assert time.thread_time() - begun < 0.05
        assert await sender.read(reply, soon())
        await sender.release(reply)

    asyncio.run(read())


def test_an_earlier_moment_counts_after_a_later_one(serve: Any, replying: Any) -> None:
    async def read() -> None:
        sender = AsyncHttpSender()
        reply = await opened(sender, serve(replying(CHUNKED, ONE, ONE, ONE, b"3\r\n", *[b""] * 20, pause=0.05)))
        for seconds in (60.0, 1.5, 30.0):
            assert await sender.read(reply, soon(seconds)) == b"one"
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            await sender.read(reply, soon(0.02))
        assert watch.took() < 0.2

    asyncio.run(read())


def test_a_later_moment_counts_after_an_earlier_one(serve: Any) -> None:
    async def read() -> None:
        sender = AsyncHttpSender()
        reply = await opened(sender, serve(speaking(8, pause=0.1)))
        for _ in range(8):
            assert await sender.read(reply, soon(0.5)) == b"one"

    asyncio.run(read())


def test_a_stream_goes_on_in_another_loop(serve: Any) -> None:
    sender = AsyncHttpSender()
    url = serve(speaking(4, pause=0.02))
    with asyncio.Runner() as first:
        reply = first.run(opened(sender, url))
        assert first.run(sender.read(reply, soon())) == b"one"
        with asyncio.Runner() as other:
            assert other.run(sender.read(reply, soon())) == b"one"
        assert first.run(sender.read(reply, soon())) == b"one"
    assert asyncio.run(whole(sender, reply)) == b"one"
    sender.close()


@pytest.mark.parametrize("where", ["its loop", "another thread", "no loop"])
def test_a_dropped_reply_closes_its_connection_and_the_loop_forgets_it(server: Any, where: str) -> None:
    asked, ended = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED)
        asked.wait(5)  # or it comes with the head, and nothing is waited for
        connection.sendall(ONE)
        if not connection.recv(65536):
            ended.set()

    one, after = server(answer), server(speaking(3))
    kept: list[Reply] = []

    def drop() -> None:
        kept.clear()
        gc.collect()

    async def begun(sender: AsyncHttpSender) -> None:
        kept.append(await opened(sender, one.url))
        asyncio.get_running_loop().call_later(0.05, asked.set)
        assert await sender.read(kept[0], soon()) == b"one"
        assert kept[0].handle.link.watch._watching
        if where == "its loop":
            drop()
        elif where == "another thread":
            await asyncio.to_thread(drop)

    async def once_more(sender: AsyncHttpSender) -> bytes:
        """The next socket gets the number of the one before."""
        return await whole(sender, await opened(sender, after.url))

    with asyncio.Runner() as runner:
        sender = AsyncHttpSender()
        runner.run(begun(sender))
        drop()
        assert ended.wait(10)
        assert runner.run(once_more(sender)) == b"oneoneone"
        assert not runner.get_loop()._selector.get_map().keys() - {runner.get_loop()._ssock.fileno()}  # type: ignore[attr-defined]
        sender.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_drops_the_reply_leaves_the_parents_alone(serve: Any) -> None:
    async def read() -> None:
        sender = AsyncHttpSender()
        reply = await opened(sender, serve(speaking(5, pause=0.05)))
        assert await sender.read(reply, soon()) == b"one"
        child = os.fork()
        if not child:
            try:
                reply.handle.link.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert await whole(sender, reply) == b"one" * 4

    asyncio.run(read())


def test_a_cancelled_read_closes_the_connection(server: Any) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(CHUNKED + ONE)
        if not connection.recv(65536):
            ended.set()

    async def read() -> None:
        sender = AsyncHttpSender()
        reply = await opened(sender, server(answer).url)
        assert await sender.read(reply, soon()) == b"one"
        task = asyncio.create_task(sender.read(reply, soon()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 10)

    asyncio.run(read())
