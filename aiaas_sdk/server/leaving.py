"""A client that goes away: what still waits for it is called off."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any

from aiaas_sdk.server.bodies import LeftError

__all__ = ["Attended"]

PATIENCE = 0.05
"""Seconds after which somebody looks whether the client is still there: most calls are over by then."""


class Attended:
    """Cancels the task in which it is entered as soon as the client has gone, and raises LeftError there.

    The request's body must have been read: what ASGI's `receive` gives after it is the client's leaving.
    """

    __slots__ = ("_left", "_lookout", "_receive", "_task", "_watcher", "since")

    since: float
    """When it was entered, on the clock of the loop."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._left = False
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        lookout = getattr(_here, "lookout", None)
        if lookout is None or lookout.loop is not loop:
            lookout = _here.lookout = _Lookout(loop)
        self._lookout: _Lookout = lookout
        lookout.add(self)

    def begin(self) -> None:
        """Watch for the client from now on."""
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lookout.waiting.pop(self, None)
        if self._watcher is not None:
            self._watcher.cancel()
        # It may have gone in the moment in which the work ended: then the cancellation is still to come, at the
        # next await. Nobody awaits after this error, which ends the request.
        if self._left:
            raise LeftError from None


class _Lookout:
    """The patience of all requests of one event loop. A timer for each of them would cost as much as reading it.

    Attributes:
        waiting: for whose clients nobody looks yet, the longest waiting first.
    """

    __slots__ = ("_awake", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self._awake = loop, False
        self.waiting: dict[Attended, None] = {}

    def add(self, one: Attended) -> None:
        one.since = self.loop.time()
        self.waiting[one] = None
        if not self._awake:
            self._awake = True
            self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        while self.waiting:
            one = next(iter(self.waiting))
            if (left := one.since + PATIENCE - now) > _EARLY:
                self.loop.call_later(left, self._look)
                return
            del self.waiting[one]
            one.begin()
        self._awake = False


_EARLY = 0.002  # seconds by which a timer of the loop, which counts whole milliseconds, may be early
_here = threading.local()
