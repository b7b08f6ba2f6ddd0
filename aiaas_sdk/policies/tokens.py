"""The retry budget of an origin: retries are paid for by successes, so that an outage isn't made worse by them.

Figures and rules are those of the AWS SDKs' standard retry mode.
"""

from __future__ import annotations

import threading

__all__ = ["FULL", "Tokens", "forget", "tokens_of"]

FULL = 500.0
"""Tokens of an origin at first and at most."""
_origins: dict[tuple[str, str, int], Tokens] = {}


class Tokens:
    """Safe across threads."""

    def __init__(self) -> None:
        self._left, self._guard = FULL, threading.Lock()

    @property
    def left(self) -> float:
        return self._left

    def take(self, cost: float) -> bool:
        """Whether there were enough; only then they are gone."""
        with self._guard:
            if self._left < cost:
                return False
            self._left -= cost
            return True

    def give(self, count: float) -> None:
        if self._left < FULL:  # most often it is full, and a stale look does no harm
            with self._guard:
                self._left = min(FULL, self._left + count)


def tokens_of(origin: tuple[str, str, int]) -> Tokens:
    """Those of an origin (scheme, host, port), in this process."""
    return _origins.get(origin) or _origins.setdefault(origin, Tokens())


def forget(origin: tuple[str, str, int] | None = None) -> None:
    """Begin anew with an origin, or with all: in tests a port comes back with another server behind it."""
    if origin is None:
        _origins.clear()
    else:
        _origins.pop(origin, None)
