"""The opened versions of one model: each opened once for all who wait for it, and those that can't be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiaas_sdk.errors import AiaasError, BundleError, ConfigError, ModelError, ModelNotReadyError
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.server.memory import Memory
from aiaas_sdk.server.opened import Opened
from aiaas_sdk.server.warming import warmed

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Failure", "Key", "Shelf", "Source"]

Key: TypeAlias = "str | None"
"""A version; None for the one that the address of a model without versions means."""

logger = logging.getLogger("aiaas_sdk.server")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries to open a version that can't be opened; they double."""
CALM = 60.0
"""Seconds after a failure from which the next one counts as the first."""
SPARE = 2
"""Versions that stay open beside the one that is served, after somebody has asked for them."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's versions come from.

    Attributes:
        make: the unopened model of a version.
        size: bytes that it takes.
        stamp: what changes with its files.
        warm: run it once before it serves.
        lasting: opening goes on when nobody waits for it any more; the next caller finds it done.
    """

    make: Callable[[Key], AsyncModel[Any, Any]]
    size: Callable[[Key], int] = lambda key: 0
    stamp: Callable[[Key], object] = lambda key: None
    warm: bool = False
    lasting: bool = True


@dataclass(slots=True)
class Failure:
    """Why a version isn't open.

    Attributes:
        again: when it may be tried again (`time.monotonic`); what is damaged not before its files change.
        stamp: of the files that failed.
        since: when it failed; pause: seconds from then to `again`, where it isn't for good.
    """

    error: AiaasError
    again: float
    stamp: object
    since: float
    pause: float


@dataclass(slots=True, eq=False)
class _Opening:
    """A version that is being opened, and how many wait for it."""

    task: asyncio.Task[Opened] = field(init=False)
    waiting: int = 0


class Shelf:
    """The versions of one model that are open or being opened.

    Args:
        name: of the model.
        source: where they come from.
        memory: what they may take.

    Attributes:
        failures: why versions can't be opened.
        infos: what the versions said of themselves when they were last opened.
    """

    def __init__(self, name: str, source: Source, memory: Memory) -> None:
        self._name, self._source, self._memory = name, source, memory
        self._opened: dict[Key, Opened] = {}
        self._openings: dict[Key, _Opening] = {}
        self._ending: set[Opened] = set()
        self._last: dict[Key, Failure] = {}
        self.failures: dict[Key, Failure] = {}
        self.infos: dict[Key, ModelInfo] = {}

    @property
    def opened(self) -> Mapping[Key, Opened]:
        """Those that take calls."""
        return {key: opened for key, opened in self._opened.items() if not opened.retired}

    def at_hand(self, key: Key) -> Opened | None:
        """A version, if it is open; the caller counts himself in."""
        found = self._opened.get(key)
        return None if found is None or found.retired else found

    async def entered(self, key: Key, *, anyway: bool = False) -> Opened:
        """A version, opened if need be; the caller is counted in, and calls `leave`.

        Args:
            anyway: although it has failed lately.

        Raises:
            AiaasError: it can't be opened. What failed lately fails the same again, without another try.
        """
        if (found := self.at_hand(key)) is not None:
            found.users += 1
            return found
        opening = self._openings.get(key)
        if opening is None:
            failure = self.failures.get(key)
            if failure is not None and not anyway and time.monotonic() < failure.again:
                raise failure.error.with_traceback(None)  # or it would grow with each call
            opening = self._openings[key] = _Opening()
            opening.task = asyncio.ensure_future(self._open(key, opening))
            opening.task.add_done_callback(_seen)
        return await self._awaited(key, opening)

    async def _awaited(self, key: Key, opening: _Opening) -> Opened:
        opening.waiting += 1
        try:
            return await asyncio.shield(opening.task)
        except BaseException:
            if not opening.task.done():
                opening.waiting -= 1
                if not (opening.waiting or self._source.lasting):
                    self._openings.pop(key, None)  # or the next caller would join what ends
                    opening.task.cancel()
            elif not opening.task.cancelled() and opening.task.exception() is None:  # left in the last moment
                opening.task.result().leave()
            raise

    async def _open(self, key: Key, opening: _Opening) -> Opened:
        stamp: object = None
        try:
            stamp = await asyncio.to_thread(self._source.stamp, key)
            opened = await self._opened_within_memory(key)
        except Exception as error:
            told = _told(error)
            self.fail(key, told, stamp)
            if told is error:
                raise
            raise told from error
        finally:
            if self._openings.get(key) is opening:
                del self._openings[key]
        self.failures.pop(key, None)
        self.infos[key] = opened.info
        self._opened[key] = opened
        opened.users = opening.waiting
        return opened

    async def _opened_within_memory(self, key: Key) -> Opened:
        size = await asyncio.to_thread(self._source.size, key)
        self._memory.check(size, self._name)
        await self._memory.reserve(size)
        model: AsyncModel[Any, Any] | None = None
        try:
            model = self._source.make(key)
            info = await model.info()
            if self._source.warm:
                await warmed(model)
        except BaseException:
            self._memory.release(size)
            if model is not None:
                await model.aclose()
            raise
        told = info.metadata.get("memory")
        opened = Opened(model, info, told if type(told) is int and told >= 0 else size, self._left, 0)
        self._memory.settle(size, opened)
        return opened

    def _left(self, opened: Opened) -> None:
        if opened.retired:
            (self._ending.discard if opened.closed else self._ending.add)(opened)
            for key in [key for key, one in self._opened.items() if one is opened]:
                del self._opened[key]
        self._memory.left(opened)

    # ------------------------------------------------------------ failures
    def fail(self, key: Key, error: AiaasError, stamp: object = None) -> Failure:
        """Note why a version isn't open; the pause before the next try is twice the last one."""
        now, last = time.monotonic(), self._last.get(key)
        pause = FIRST_PAUSE
        if last is not None and now - last.since < CALM:
            pause = min(2 * last.pause, LONGEST_PAUSE)
        again = float("inf") if isinstance(error, BundleError | ConfigError | ModelError) else now + pause
        if not self._source.lasting:  # an endpoint may be back at any moment, and its policies bound the asking
            again = now
        self.failures[key] = self._last[key] = Failure(error, again, stamp, now, pause)
        return self.failures[key]

    def forgive(self, stamps: Mapping[Key, object]) -> None:
        """Forget the failures of versions whose files have changed or gone; `stamps` are the present ones."""
        for key, stamp in stamps.items():
            failure = self.failures.get(key)
            if failure is not None and failure.stamp not in (None, stamp):
                del self.failures[key]

    def forget(self, there: Collection[Key]) -> None:
        """Let go of what was said by and of versions whose files are gone, where they aren't open either.

        A model that is trained each hour has thousands of versions in a year.
        """
        kept = {None, *there, *self._opened, *self._openings}
        for known in (self.infos, self.failures, self._last):
            for key in known.keys() - kept:
                del known[key]

    # ------------------------------------------------------------ closing
    def retire(self, key: Key) -> None:
        """Close a version after the calls that use it."""
        if (found := self.at_hand(key)) is not None:
            found.retire()

    def spare(self, served: Key) -> None:
        """Close the versions that were asked for once and not lately."""
        others = sorted((one for key, one in self.opened.items() if key != served), key=lambda one: one.used)
        idle = [one for one in others if one.idle]
        for one in idle[: max(0, len(others) - SPARE)]:
            one.retire()

    async def close(self) -> None:
        """Close all, whoever uses them."""
        openings = [opening.task for opening in self._openings.values()]
        for task in openings:
            task.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        for opened in [*self._opened.values(), *self._ending]:
            await opened.end()


def _told(error: Exception) -> AiaasError:
    """Whatever opening ended with as an error of ours."""
    if isinstance(error, AiaasError):
        return error
    if isinstance(error, MemoryError):
        return ModelNotReadyError("there is no memory to open it", hint="Close other programs, or serve fewer models")
    return ModelError(f"opening it raised {type(error).__name__}")


def _seen(task: asyncio.Task[Opened]) -> None:
    """Nobody may be waiting any more; the failure is noted already."""
    if not task.cancelled():
        task.exception()
