"""What a model and its views share: one backend, opened once, its connections and its counts."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from aiaas_sdk.errors import ClosedError, DeadlineExceededError
from aiaas_sdk.flow import AsyncSender, Flow, Sender, adrive, drive
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo, Stats

__all__ = ["Engine", "Serving"]

Opening: TypeAlias = Callable[[Call], Flow[ModelInfo]]


class Serving(Protocol):
    """What the engine needs of a backend."""

    scheme: str
    address: Any
    parallel: int
    explain_rows: int
    known: ModelInfo | None
    at_once: Callable[..., Any] | None

    def opening(self, call: Call) -> Flow[ModelInfo]: ...
    def readiness(self, call: Call) -> Flow[bool]: ...
    def start(self, call: Call, *arguments: Any) -> Flow[Any]: ...
    def unsupported(self, verb: str) -> Exception: ...
    def lacks(self, method: str) -> str | None: ...
    def close(self) -> None: ...


class Engine:
    """One opened backend. It closes when the last model that leases it closes or is dropped."""

    def __init__(
        self,
        backend: Serving,
        make_sender: Callable[[], Sender],
        make_async_sender: Callable[[], AsyncSender],
    ) -> None:
        self.backend = backend
        self.info: ModelInfo | None = None
        self._make_sender, self._make_async_sender = make_sender, make_async_sender
        self._sender: Sender | None = None
        self._async_sender: AsyncSender | None = None
        self._guard = threading.Lock()
        self._opening = threading.Lock()
        self._loops: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()
        self._leases = 0
        self._closed = False
        self._calls = self._failures = self._attempts = self._rows = 0
        self._seconds = 0.0

    # ------------------------------------------------------------ leases
    def lease(self) -> Engine:
        with self._guard:
            self._leases += 1
        return self

    def release(self) -> None:
        with self._guard:
            self._leases -= 1
            if self._leases > 0 or self._closed:
                return
            self._closed = True
        self.backend.close()
        for sender in (self._sender, self._async_sender):
            if (close := getattr(sender, "close", None)) is not None:
                close()

    def check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the model {self.backend.address} was closed", hint="Load it again")

    # ------------------------------------------------------------ senders
    @property
    def sender(self) -> Sender:
        if self._sender is None:
            with self._guard:
                self._sender = self._sender or self._make_sender()
        return self._sender

    @property
    def async_sender(self) -> AsyncSender:
        if self._async_sender is None:
            with self._guard:
                self._async_sender = self._async_sender or self._make_async_sender()
        return self._async_sender

    # ------------------------------------------------------------ opening, once
    def open(self, opening: Opening, call: Call) -> ModelInfo:
        """Open the backend unless it is open; of several threads one does it, the others wait."""
        deadline = call.deadline
        if self.info is None:
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._opening.acquire(timeout=left):
                raise DeadlineExceededError("the model was still being opened at the deadline")
            try:
                self.check_open()
                if self.info is None:
                    self.info = drive(opening(call), self.sender, deadline)
            finally:
                self._opening.release()
        return self.info

    async def aopen(self, opening: Opening, call: Call) -> ModelInfo:
        """The awaited twin of `open`: one task of a loop opens, the others wait."""
        deadline = call.deadline
        if self.info is None:
            lock = self._loops.setdefault(asyncio.get_running_loop(), asyncio.Lock())
            try:
                await asyncio.wait_for(lock.acquire(), None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                raise DeadlineExceededError("the model was still being opened at the deadline") from None
            try:
                self.check_open()
                if self.info is None:
                    self.info = await adrive(opening(call), self.async_sender, deadline)
            finally:
                lock.release()
        return self.info

    # ------------------------------------------------------------ counts
    def count(self, call: Call, failed: bool, begun: float) -> None:
        """A call that was begun then (`time.perf_counter`) has ended."""
        seconds = time.perf_counter() - begun
        with self._guard:
            self._calls += 1
            self._attempts += call.attempts
            self._seconds += seconds
            if failed:
                self._failures += 1
            else:
                self._rows += call.rows or 0

    def stats(self) -> Stats:
        with self._guard:
            return Stats(
                calls=self._calls,
                failures=self._failures,
                attempts=self._attempts,
                rows=self._rows,
                seconds=self._seconds,
            )
