"""A number of places, which threads and event loops share."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future

from aiaas_sdk.flow import Flow, wait

__all__ = ["Gate"]


class Gate:
    """`size` places, given in the order in which they were asked for. A child process has all of them free."""

    def __init__(self, size: int, what: str) -> None:
        self._size, self._what = size, what
        self._reset()

    def _reset(self) -> None:
        self._process, self._guard = os.getpid(), threading.Lock()
        self._free = self._size
        self._waiting: deque[Future[None]] = deque()

    def enter(self) -> Flow[None]:
        """A place, now or when its turn has come. A wait that is given up loses none."""
        if self._process != os.getpid():
            self._reset()
        with self._guard:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._waiting.append(turn)
        try:
            yield from wait(turn, self._what)
        except BaseException:
            if not turn.cancel():  # the turn had come all the same
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to whoever waits longest."""
        while True:
            with self._guard:
                if not self._waiting:
                    self._free = min(self._free + 1, self._size)  # a child process may give back its parent's
                    return
                turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_result(None)
                return
