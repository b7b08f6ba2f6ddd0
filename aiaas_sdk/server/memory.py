"""The memory that the models here may take together. The least recently used make room for those that are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.opened import Opened

__all__ = ["Memory"]

PATIENCE = 1.0
"""Seconds for which room is waited for before a model in use is taken from its next callers."""


class Memory:
    """The budget of one event loop's models.

    A model counts for the bytes of its version's files, or for what `memory` in its metadata says. One that is in use
    is never closed; where all are in use for a while, the one that was idle the longest ago takes no further calls,
    which wait for it to be opened again, and so each has its turn.

    Args:
        limit: bytes; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._opened: set[Opened] = set()
        self._reserved = 0
        self._freed: asyncio.Event | None = None  # only while somebody waits: this is told after every call

    @property
    def used(self) -> int:
        """Bytes that are taken, those of models that are being opened included."""
        return self._reserved + sum(opened.size for opened in self._opened)

    def check(self, size: int, name: str) -> None:
        """ConfigError where a model alone is too large."""
        if self.limit is not None and size > self.limit:
            raise ConfigError(
                f"model {name!r} takes {size} bytes, and all models together may take {self.limit}",
                hint="Raise memory=, or serve it elsewhere",
            )

    async def reserve(self, size: int) -> None:
        """Wait for room, and take it; `settle` or `release` follows."""
        while self.limit is not None and self.used + size > self.limit and (self._opened or self._reserved):
            if not self._evict(lambda opened: opened.idle):
                await self._wait()
        self._reserved += size

    def settle(self, size: int, opened: Opened) -> None:
        """What was reserved is taken by this model."""
        self._reserved -= size
        self._opened.add(opened)
        self._tell()  # it can give room to those who wait, once it is idle
        while self.limit is not None and self.used > self.limit and self._evict(lambda one: one.idle and one != opened):
            pass

    def release(self, size: int) -> None:
        """What was reserved isn't needed."""
        self._reserved -= size
        self._tell()

    def left(self, opened: Opened) -> None:
        """Nobody uses it now."""
        if opened.closed:
            self._opened.discard(opened)
        self._tell()

    def _evict(self, eligible: Callable[[Opened], bool]) -> bool:
        found = [opened for opened in self._opened if opened.size and eligible(opened)]
        if found:
            min(found, key=lambda opened: opened.used).retire()
        return bool(found)

    async def _wait(self) -> None:
        self._freed = self._freed or asyncio.Event()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._freed.wait()
        except TimeoutError:
            self._evict(lambda opened: not opened.retired)

    def _tell(self) -> None:
        if self._freed is not None:
            self._freed.set()
            self._freed = None
