"""Turns: who comes when, and what a figure of them is.

Machines slow down and speed up, other work comes and goes. So those that are compared take turns, many of them, and a
ratio is the median over the rounds of what it was in each round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Round = Mapping[str, Mapping[str, float]]
"""What each had in its turn, by its name and what was measured."""


def orders(these: Sequence[T], rounds: int) -> Iterator[Sequence[T]]:
    """Who comes first, second, ... in each round: each is first as often."""
    for number in range(rounds):
        place = number % len(these)
        yield [*these[place:], *these[:place]]


def middle(found: Sequence[Round], name: str, what: str) -> float:
    return statistics.median(turn[name][what] for turn in found)


def ratio(found: Sequence[Round], mine: str, other: str, what: str) -> float:
    return statistics.median(turn[mine][what] / turn[other][what] for turn in found)


# ---------------------------------------------------------------- in one process
def seconds(call: Callable[[], object], times: int = 1, clock: Callable[[], float] = time.thread_time) -> float:
    """CPU time of a call, of this thread: other processes on the machine disturb it less than wall time."""
    begun = clock()
    for _ in range(times):
        call()
    return (clock() - begun) / times


class Compared(NamedTuple):
    """Medians of the rounds: seconds of the raw call, the difference, and the ratio."""

    raw: float
    over: float
    ratio: float


def compared(
    ours: Callable[[], object],
    raw: Callable[[], object],
    rounds: int,
    times: int = 1,
    clock: Callable[[], float] = time.thread_time,
) -> Compared:
    """Our call and the raw one, after one of each to warm up."""
    ours(), raw()
    pairs = [(seconds(ours, times, clock), seconds(raw, times, clock)) for _ in range(rounds)]
    return Compared(
        statistics.median(b for _, b in pairs),
        statistics.median(a - b for a, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )
