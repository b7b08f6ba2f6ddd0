"""A call on its way from the thread that generates to who waits for it; neither waits for the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from aiaas_sdk.records.chat import Spoken
from aiaas_sdk.records.language import Delta

__all__ = ["Job"]


class Job:
    """One call.

    Attributes:
        left: nobody waits for it any more; whoever works on it ends.
        asked, begun: moments (`time.perf_counter`) at which it was asked for and begun.
    """

    def __init__(self) -> None:
        self.left = False
        self.asked = time.perf_counter()
        self.begun: float | None = None
        self._guard = threading.Lock()
        self._pieces: deque[str] = deque()
        self._outcome: Spoken | BaseException | None = None
        self._waiting: Future[Any] | None = None

    def next(self) -> Future[Any]:
        """The future of what comes next: a `Delta`, all that has come since in one, or the whole as `Spoken`."""
        future: Future[Any] = Future()
        with self._guard:
            if not self._settle(future):
                self._waiting = future
        return future

    def leave(self) -> None:
        self.left = True

    def say(self, text: str) -> None:
        self._put(text, None)

    def end(self, outcome: Spoken | BaseException) -> None:
        self._put("", outcome)

    def _put(self, text: str, outcome: Spoken | BaseException | None) -> None:
        with self._guard:
            if text:
                self._pieces.append(text)
            if outcome is not None and self._outcome is None:
                self._outcome = outcome
            if self._waiting is not None and self._settle(self._waiting):
                self._waiting = None

    def _settle(self, future: Future[Any]) -> bool:
        """Give the future what is there. False where nothing is."""
        if not self._pieces and self._outcome is None:
            return False
        if not future.set_running_or_notify_cancel():  # its caller has gone
            return True
        if self._pieces:
            future.set_result(Delta("".join(self._pieces)))
            self._pieces.clear()
        elif isinstance(self._outcome, BaseException):
            future.set_exception(self._outcome)
        else:
            future.set_result(self._outcome)
        return True
