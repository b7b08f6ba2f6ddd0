"""The watch that an event loop keeps on an opened reply's socket: one registration for all of its pieces.

A loop tells of a socket in each of its rounds, until what has come is taken. So what it calls takes it at once, and
wakes the task when there is a piece. Where nobody reads, the loop is told to be silent until the next read; what comes
meanwhile waits in the system's buffers, and then at the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.steps import READ, Ready, left

if TYPE_CHECKING:
    from aiaas_sdk.transport.connection import Connection

__all__ = ["Watch"]


class Watch:
    """Of one socket, in one loop. The loop's registration holds this alone, never the reply: that may be dropped.

    `wait` is for other waits than for something to read, and for a loop that watches no sockets.
    """

    __slots__ = ("_asked", "_due", "_fd", "_future", "_process", "_timer", "_until", "_wait", "_watching", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, wait: Callable[[Ready], Awaitable[Any]]) -> None:
        self.loop, self._fd, self._wait, self._process = loop, fd, wait, os.getpid()
        self._watching = False
        self._asked: tuple[Connection, Answer] | None = None
        self._future: asyncio.Future[int] | None = None
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    # ------------------------------------------------------------ a read
    async def receive(self, connection: Connection, answer: Answer, until: float | None) -> None:
        """Receive until there is another piece, or the answer is done. Raises TimeoutError, and what receiving does."""
        want = connection.first
        while not (answer.done or answer.pieces):
            if want == READ and self._listens():
                want = await self._received(connection, answer, until)
                continue
            if want:
                await self._wait(Ready(self._fd, want, until))
            else:
                left(until)
            want = connection.attempt(answer) or connection.first

    async def _received(self, connection: Connection, answer: Answer, until: float | None) -> int:
        """Received in the loop's calls; gives what is wanted next, for the case that there is no piece."""
        self._arm(until)
        self._asked, self._future = (connection, answer), self.loop.create_future()
        try:
            return await self._future
        finally:
            self._asked = self._future = None

    def _listens(self) -> bool:
        if not self._watching:
            try:
                self.loop.add_reader(self._fd, self._readable)
            except NotImplementedError:  # the Proactor loop (Windows) watches no sockets
                return False
            self._watching = True
        return True

    def _readable(self) -> None:
        """The loop calls it. The task may not have heard yet of a piece, or may have been cancelled."""
        asked, future = self._asked, self._future
        if asked is None or future is None or future.done():
            self._silence()
            return
        connection, answer = asked
        want = 0
        try:
            while not (want or answer.done or answer.pieces):
                want = connection.attempt(answer)
        except BaseException as error:
            future.set_exception(error)
        else:
            if want != READ:
                future.set_result(want)

    # ------------------------------------------------------------ its time
    def _arm(self, until: float | None) -> None:
        """One timer for many reads: it looks again when it goes off, since most ends move on with what comes."""
        self._until = until
        if until is None or (self._timer is not None and self._due <= until):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = until, self.loop.call_later(max(0.0, until - time.monotonic()), self._late)

    def _late(self) -> None:
        self._timer = None
        future = self._future
        if future is None or future.done() or self._until is None:
            return
        if self._until <= time.monotonic():
            future.set_exception(TimeoutError())
        else:
            self._arm(self._until)

    # ------------------------------------------------------------ its end
    def end(self) -> bool:
        """Let go of the socket, which may be used elsewhere then. False where only the loop's own thread could."""
        if (self._watching or self._timer) and self._process == os.getpid() and not self.loop.is_closed():
            if self._elsewhere():
                return False
            self._stop()
        return True

    def close(self, sock: socket.socket) -> None:
        """Let go of the socket, then close it: a loop takes the next socket of that number for one that it knows."""
        if self.end():
            sock.close()
            return
        with contextlib.suppress(OSError):  # the peer may have gone
            sock.shutdown(socket.SHUT_RDWR)  # it hears of it at once
        try:
            self.loop.call_soon_threadsafe(self._closed, sock)
        except RuntimeError:  # the loop was closed just now
            sock.close()

    def _closed(self, sock: socket.socket) -> None:
        self._stop()
        sock.close()

    def _elsewhere(self) -> bool:
        """Whether the loop runs in another thread; a finaliser is called in any."""
        return self.loop.is_running() and asyncio._get_running_loop() is not self.loop

    def _stop(self) -> None:
        self._silence()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _silence(self) -> None:
        if self._watching:
            self._watching = False
            self.loop.remove_reader(self._fd)
