"""How many calls `map` keeps in flight where nobody said: as many as the peer carries.

Additive increase, multiplicative decrease, as TCP does it (D.-M. Chiu, R. Jain, 1989). The limit grows by one for each
window of answers, and is halved where the peer pushes back: it refuses (429, 503), it takes too long, a call needed
more than one attempt, or the latency says that calls wait in a queue. It never sleeps and reads no clock of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiaas_sdk.errors import DeadlineExceededError, RateLimitedError, UnavailableError

__all__ = ["MOST", "Begun", "Pace"]

MOST = 64
"""Calls in flight at most, unless `concurrency` says otherwise; a sender keeps as many connections."""
DECREASE = 0.5
QUEUEING = 1.75
"""Latency over the best that was seen lately, from which on calls are taken to wait in a queue. Less than 1/DECREASE:
a decrease then ends below what the peer carries, where the best is seen again."""
LATELY, LATELY_TRIPS = 15.0, 50
"""Seconds, and calls one after the other, after which half of what was seen is forgotten."""
FEWEST_SEEN = 16
"""Latencies that are looked at together, at least."""
PATIENCE = 16
"""Where the peer pushed back last, growing takes this many windows instead of one."""
REFUSALS = (429, 503)
"""The peer says with these that it did nothing."""
PUSHED_BACK = (RateLimitedError, UnavailableError, DeadlineExceededError)


@dataclass(slots=True)
class Begun:
    """A call on its way: when it began, under which limit, and how many were in flight with it."""

    at: float
    limit: int
    flying: int


class Pace:
    """The number of calls to keep in flight: `limit`. Safe across threads.

    Args:
        start: the limit to begin with.
        least, most: its bounds; equal ones fix it.
        attempts: requests of a call with which all is well: a hedged one may take several.
        clock: gives seconds.
    """

    def __init__(
        self,
        start: int,
        least: int = 1,
        most: int = MOST,
        attempts: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._level = float(start)
        self._least, self.most, self._attempts, self._clock = least, most, attempts, clock
        self._guard = threading.Lock()
        self._flying = 0
        self._cut_at = float("-inf")
        self._refused_at = float("inf")
        self._latency = _Latency()

    @classmethod
    def fixed(cls, limit: int) -> Pace:
        """A pace that stays as it is."""
        return cls(limit, limit, limit)

    @property
    def limit(self) -> int:
        return int(self._level)

    # ------------------------------------------------------------ what calls tell
    def begin(self) -> Begun:
        """A call begins. Each is ended once, by one of the three below."""
        with self._guard:
            self._flying += 1
            return Begun(self._clock(), self.limit, self._flying)

    def answered(self, begun: Begun, rows: int, attempts: int = 1) -> None:
        """It was answered, after so many attempts."""
        with self._guard:
            self._flying -= 1
            now = self._clock()
            if self._least == self.most:
                return
            if attempts > self._attempts:
                self._decrease(begun, now)
            elif self._latency.rises(now - begun.at, rows, now, self.limit):
                self._decrease(begun, now, refused=False)
            elif 2 * begun.flying >= self.limit:  # RFC 7661: what isn't used says nothing about more
                self._increase()

    def failed(self, begun: Begun, error: BaseException) -> bool:
        """It failed. True where it was refused and less is asked of the peer from now on: it may pass then."""
        with self._guard:
            self._flying -= 1
            if isinstance(error, PUSHED_BACK) and self._least < self.most:
                self._decrease(begun, self._clock())
            refused = isinstance(error, RateLimitedError | UnavailableError) and error.status in REFUSALS
            return refused and self.limit < max(begun.limit, begun.flying)

    def dropped(self) -> None:
        """Nobody waits for it any more."""
        with self._guard:
            self._flying -= 1

    # ------------------------------------------------------------ the limit
    def _increase(self) -> None:
        step = 1 / self._level
        if self._level + 1 >= self._refused_at:
            step /= PATIENCE
        self._level = min(self._level + step, float(self.most))
        if self._level >= self._refused_at + 1:  # it carries more by now
            self._refused_at = float("inf")

    def _decrease(self, begun: Begun, now: float, refused: bool = True) -> None:
        """At most once a round trip: a call that began before the last decrease tells old news."""
        if begun.at <= self._cut_at:
            return
        if refused:
            self._refused_at = float(max(self.limit, self._least + 1))
        self._level = max(self._level * DECREASE, float(self._least))
        self._cut_at = now
        self._latency.restart()


class _Latency:
    """The typical seconds of a call beside the best that was seen lately. Only the largest calls are comparable.

    Typical is the median of two windows: a peer that has some answers ready, or stops now and then, doesn't move it.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._forget()

    def _forget(self) -> None:
        self._best = self._best_before = float("inf")
        self._since = float("-inf")
        self.restart()

    def restart(self) -> None:
        """Look at what comes next only; the best stays."""
        self._seen: list[float] = []

    def rises(self, seconds: float, rows: int, now: float, limit: int) -> bool:
        """Take in one more. Whether they say that calls wait in a queue, under this limit."""
        if rows < self._rows:
            return False
        if rows > self._rows:
            self._rows = rows
            self._forget()
        self._seen.append(seconds)
        if len(self._seen) < max(FEWEST_SEEN, 2 * limit):
            return False
        typical = sorted(self._seen)[len(self._seen) // 2]
        self.restart()
        age = now - self._since
        if age > (lately := max(LATELY, LATELY_TRIPS * typical)):
            self._best_before = self._best if age <= 2 * lately else float("inf")
            self._best, self._since = float("inf"), now
        self._best = min(self._best, typical)
        return typical > QUEUEING * min(self._best, self._best_before)
