"""A client that goes away: what still waits for it is called off."""

from __future__ import annotations

import asyncio
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

    __slots__ = ("_left", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._left = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._begin)

    def _begin(self) -> None:
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
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # It may have gone in the moment in which the work ended: then the cancellation is still to come, at the
        # next await. Nobody awaits after this error, which ends the request.
        if self._left:
            raise LeftError from None
