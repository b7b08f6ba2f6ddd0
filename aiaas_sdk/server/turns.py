"""Whose turn it is where callers wait for one model: each in turn, however many requests he has there.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996): a request begins, on
a clock of rows, where its caller's last one ends, or now; the earliest beginning is next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["Turns"]


class Waiting(Protocol):
    """A request that waits, with its `turn`."""

    turn: int


T = TypeVar("T", bound=Waiting)


class Turns:
    """The clock of one queue."""

    def __init__(self) -> None:
        self._now = 0
        self._ends: dict[str | None, int] = {}

    def due(self, who: str | None) -> int:
        """The turn of a request that a caller would bring now."""
        now, end = self._now, self._ends.get(who, 0)
        return now if now > end else end

    def given(self, who: str | None, turn: int, rows: int) -> None:
        """He has brought it, due at that turn; it has so many rows."""
        self._ends[who] = turn + rows

    def left(self, who: str | None, rows: int) -> None:
        """It went without having had its turn, and counts for nothing."""
        if who in self._ends:
            self._ends[who] -= rows

    def taken(self, turn: int) -> None:
        """The request of this turn begins."""
        if turn > self._now:
            self._now = turn
        if len(self._ends) > 1:
            self._ends = {who: end for who, end in self._ends.items() if end > self._now}

    def ordered(self, waiting: Iterable[T]) -> Iterable[T]:
        """Those that wait, as they come to their turns; of one caller, as they came."""
        return waiting if len(self._ends) < 2 else sorted(waiting, key=_turn)


def _turn(one: Waiting) -> int:
    return one.turn
