"""Batches asked side by side, their answers given in order.

What is out at once (asked, or answered and not given yet) is never more than the pace's limit: so much of the source
is read, and no more. Whoever takes the answers slowly holds the reading back. The source is read where the answers are
taken, in that thread or task, one batch at a time with a look at what is done between two, so that a slow source
doesn't keep answers back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Protocol

from aiaas_sdk.mapping.chunks import Chunk
from aiaas_sdk.mapping.pacing import MOST
from aiaas_sdk.mapping.steps import Answers
from aiaas_sdk.workers import Workers

__all__ = ["AwaitedWork", "Kept", "Limit", "Tasks", "Work", "answered", "in_turn"]


class Limit(Protocol):
    """How many batches may be out at once; it may change at any time."""

    @property
    def limit(self) -> int: ...


class Kept(Protocol):
    """Rows whose answers are there already."""

    def answers(self) -> Answers: ...


Work = Chunk | Kept


def in_turn(work: Iterator[Work], ask: Callable[[Chunk], Answers]) -> Generator[Answers]:
    """The answers to batches that are asked one after the other, in this thread."""
    for batch in work:
        yield ask(batch) if isinstance(batch, Chunk) else batch.answers()


def answered(work: Iterator[Work], ask: Callable[[Chunk], Answers], pace: Limit) -> Generator[Answers]:
    """The answers to batches that are asked in threads.

    What reading them raises comes after the answers to those before. Whoever stops early doesn't wait for what is
    in flight.
    """
    pool = Workers(max(MOST, pace.limit), "aiaas-map")
    out: deque[Future[Answers] | Kept] = deque()
    reading = _Reading(work)
    try:
        while not reading.ended or out:
            if not reading.ended and len(out) < pace.limit and (batch := reading.next()) is not None:
                out.append(pool.submit(copy_context().run, ask, batch) if isinstance(batch, Chunk) else batch)
            if out and (reading.ended or len(out) >= pace.limit or _is_there(out[0])):
                first = out.popleft()
                yield first.result() if isinstance(first, Future) else first.answers()
        reading.finish()
    finally:
        pool.shutdown(cancel_futures=True)


class _Reading:
    """Batches, up to their end or to a failure, which is kept for later."""

    def __init__(self, work: Iterator[Work]) -> None:
        self._work = work
        self._failure: Exception | None = None
        self.ended = False

    def next(self) -> Work | None:
        try:
            return next(self._work)
        except StopIteration:
            self.ended = True
        except Exception as error:
            self._failure, self.ended = error, True
        return None

    def finish(self) -> None:
        """All batches before the end were answered."""
        if self._failure is not None:
            raise self._failure


def _is_there(batch: Any) -> bool:
    return not isinstance(batch, Future | asyncio.Future) or batch.done()


# ---------------------------------------------------------------- in an event loop
class AwaitedWork(Protocol):
    """Work that has to be awaited; None is its end."""

    async def next(self) -> Work | None: ...


class Tasks:
    """As `answered`, in tasks. `work` may have to be awaited itself.

    It is no asynchronous generator: a loop that ends closes all of those at once, also one inside of another.
    """

    def __init__(
        self, work: Iterator[Work] | AwaitedWork, ask: Callable[[Chunk], Coroutine[Any, Any, Answers]], pace: Limit
    ) -> None:
        self._ask, self._pace = ask, pace
        self._reading = _Reading(work) if isinstance(work, Iterator) else _AwaitedReading(work)
        self._out: deque[asyncio.Task[Answers] | Kept] = deque()

    async def next(self) -> Answers | None:
        """The next answers; None at the end."""
        reading, out, pace = self._reading, self._out, self._pace
        while not reading.ended or out:
            if not reading.ended and len(out) < pace.limit:
                await self._read()
            if out and (reading.ended or len(out) >= pace.limit or _is_there(out[0])):
                return await self._taken()
        reading.finish()
        return None

    async def _read(self) -> None:
        if isinstance(self._reading, _AwaitedReading):
            await self._reading.wait(self._out[0] if self._out else None)
        if (batch := self._reading.next()) is not None:
            self._out.append(asyncio.create_task(self._ask(batch)) if isinstance(batch, Chunk) else batch)
            if len(self._out) < self._pace.limit:
                await asyncio.sleep(0)  # it is sent before the next one is read, which may take its time

    async def _taken(self) -> Answers:
        """The first of those that are out. A task leaves when it has ended, not before: else nobody would end it."""
        first = self._out[0]
        if isinstance(first, asyncio.Task):
            answers = await first
        else:
            await asyncio.sleep(0)  # a long checkpoint mustn't keep the loop from everything else
            answers = first.answers()
        self._out.popleft()
        return answers

    async def close(self) -> None:
        """Cancel the tasks, and wait for their ends."""
        tasks: list[asyncio.Task[Any]] = [batch for batch in self._out if isinstance(batch, asyncio.Task)]
        if isinstance(self._reading, _AwaitedReading) and self._reading.task is not None:
            tasks.append(self._reading.task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _AwaitedReading:
    """As `_Reading`: the next batch is read in a task."""

    def __init__(self, work: AwaitedWork) -> None:
        self._work = work
        self.task: asyncio.Task[Work | None] | None = None
        self._failure: Exception | None = None
        self.ended = False

    async def wait(self, first: asyncio.Task[Answers] | Kept | None) -> None:
        """Until a batch is read, or the first of those that are out is there."""
        if self.task is None:
            self.task = asyncio.create_task(self._work.next())
        if first is None:
            await asyncio.wait({self.task})
        elif isinstance(first, asyncio.Task):
            await asyncio.wait({self.task, first}, return_when=asyncio.FIRST_COMPLETED)

    def next(self) -> Work | None:
        """What was read, if it was."""
        if self.task is None or not self.task.done():
            return None
        task, self.task = self.task, None
        try:
            batch = task.result()
        except Exception as error:
            self._failure, self.ended = error, True
            return None
        self.ended = batch is None
        return batch

    def finish(self) -> None:
        if self._failure is not None:
            raise self._failure
