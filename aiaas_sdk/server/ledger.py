"""What a server counts: rows of numbers by key, in memory that the processes of one server share.

Each process writes a page of its own, and whoever tells the numbers adds the pages up. A page is a file where several
processes serve, so that what one of them counted outlives it, and the process that follows it goes on counting there.

A page has slots of fixed size: the key's length (2 bytes), the key (JSON), and numbers as doubles, which are exact
counts up to 2^53. A key is written before its length, so that no other process reads half of it.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator, Sequence

from pydantic_core import from_json, to_json

__all__ = ["NOW", "NUMBERS", "Key", "Ledger"]

logger = logging.getLogger("aiaas_sdk.server")

Key = tuple[str, ...]
NUMBERS = 128
"""Of a row."""
NOW = "now"
"""Begins the key of what isn't a count but a state of this process; a process that follows another one begins anew."""
_KEY_BYTES = 1024
_SLOT_BYTES = _KEY_BYTES + 8 * NUMBERS
_SLOTS = 4096  # memory that nothing was written to is only address space


class Ledger:
    """The rows of one process, and the sums over all.

    Rows are written by the thread of the event loop alone.
    """

    def __init__(self) -> None:
        self._page: mmap.mmap | None = None
        self._others: list[mmap.mmap] = []
        self._rows: dict[Key, memoryview[float]] = {}
        self._lost: memoryview[float] | None = None

    def share(self, number: int, own: int, others: Sequence[int]) -> None:
        """Count in a file, and tell what the other processes count in theirs; before anything is counted.

        Args:
            number: of this process, which the one that takes its place has, too.
            own, others: descriptors of files, which may be closed afterwards.
        """
        self._page, *self._others = [_mapped(file) for file in (own, *others)]
        self._rows = dict(_slots(self._page))
        for key, row in self._rows.items():
            if key[0] == NOW:
                row[0] = 0.0
        self.row(NOW, "process", str(number))[0] = os.getpid()

    def row(self, *key: str) -> memoryview[float]:
        """The numbers of a key, to be written; they begin with 0."""
        found = self._rows.get(key)
        return self._made(key) if found is None else found

    def total(self, *key: str) -> Sequence[float]:
        """The numbers of a key, over all processes."""
        return self.totals().get(key, [0.0] * NUMBERS)

    def totals(self) -> dict[Key, list[float]]:
        """The numbers of all keys, over all processes."""
        found = {key: list(row) for key, row in self._rows.items()}
        for page in self._others:
            for key, row in _slots(page):
                mine = found.get(key)
                found[key] = list(row) if mine is None else [a + b for a, b in zip(mine, row, strict=True)]
        return found

    def _made(self, key: Key) -> memoryview[float]:
        if self._page is None:
            self._page = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)
        written, start = to_json(key), len(self._rows) * _SLOT_BYTES
        if start == _SLOTS * _SLOT_BYTES or len(written) > _KEY_BYTES - 2:
            return self._beyond()
        self._page[start + 2 : start + 2 + len(written)] = written
        self._page[start : start + 2] = len(written).to_bytes(2, "little")
        row = self._rows[key] = _numbers(self._page, start)
        return row

    def _beyond(self) -> memoryview[float]:
        """For what has no room: keys come from closed sets, so that this is a fault, and not a client's doing."""
        if self._lost is None:
            logger.error("there is no room for more counters; the rest isn't counted")
            self._lost = memoryview(bytearray(8 * NUMBERS)).cast("d")
        return self._lost


def _mapped(file: int) -> mmap.mmap:
    os.ftruncate(file, _SLOTS * _SLOT_BYTES)  # all say the same, and the first one is heard
    return mmap.mmap(file, _SLOTS * _SLOT_BYTES)


def _slots(page: mmap.mmap) -> Iterator[tuple[Key, memoryview[float]]]:
    for start in range(0, len(page), _SLOT_BYTES):
        size = int.from_bytes(page[start : start + 2], "little")
        if not size:
            return
        yield tuple(from_json(bytes(page[start + 2 : start + 2 + size]))), _numbers(page, start)


def _numbers(page: mmap.mmap, start: int) -> memoryview[float]:
    return memoryview(page)[start + _KEY_BYTES : start + _SLOT_BYTES].cast("d")
