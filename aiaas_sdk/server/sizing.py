"""How many rows a shared forward pass should have, learned from the passes.

More rows in a pass are mostly better, since what each pass costs in any case is shared, but not without end: beyond
some size a model's intermediate results leave the processor's caches, and each row takes longer. That size differs
between models and machines by a factor of ten, so nobody should have to know it.
"""

from __future__ import annotations

__all__ = ["Sizing"]

_WEIGHT = 0.2
"""Of the newest pass in the mean of its size."""
_KNOWN = 3
"""Passes of a size, from which on it counts."""
_WORSE = 1.25
"""A row that takes so many times as long in a larger pass is a reason for smaller ones; less may be chance."""
_PROBE = 64
"""Passes after which a few smaller ones are tried, and after as many more larger ones: the machine may have had other
work, and a load that was high from the beginning has shown the largest size alone."""
_DEEPEST = 3
"""The smaller ones are a half, a quarter and an eighth, in turns."""


class Sizing:
    """The rows of one model's passes. Sizes are told apart by powers of two, each up to one.

    Attributes:
        limit: rows that the next pass should have at most.
    """

    def __init__(self, most: int) -> None:
        self._most = self.limit = most
        self._costs: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._passes = 0

    def passed(self, rows: int, seconds: float) -> None:
        """A pass of so many rows took so many seconds of its thread's time."""
        size = (min(rows, self._most) - 1).bit_length()
        cost, known = seconds / rows, self._costs.get(size)
        self._costs[size] = cost if known is None else known + _WEIGHT * (cost - known)
        self._counts[size] = self._counts.get(size, 0) + 1
        self._passes += 1
        best = self._best()
        turn, place = divmod(self._passes, _PROBE)
        if place < _KNOWN and turn:
            best = max(1, best >> 1 + turn // 2 % _DEEPEST) if turn % 2 else 2 * best
        self.limit = min(self._most, best)

    def _best(self) -> int:
        """The most rows at which one is about as quick as in the best of the smaller passes."""
        limit, quickest = 0, float("inf")
        for size in sorted(size for size, count in self._counts.items() if count >= _KNOWN):
            if self._costs[size] > _WORSE * quickest:
                return limit
            quickest = min(quickest, self._costs[size])
            limit = 2**size
        return self._most
