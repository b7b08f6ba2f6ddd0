"""How far a `map` is."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]


class Progress:
    """A line on stderr, kept up to date; nothing where stderr is no terminal."""

    def __init__(self, total: int | None) -> None:
        self._total, self._done, self._kept = total, 0, 0
        self._begun, self._shown = time.monotonic(), 0.0
        self._on = sys.stderr.isatty()

    def add(self, rows: int, kept: bool = False) -> None:
        """So many rows more are done; `kept`: they were so before, and say nothing about the rate."""
        self._done += rows
        self._kept += rows if kept else 0
        now = time.monotonic()
        if self._on and now - self._shown > 0.1:
            self._shown = now
            self._write(now)

    def _write(self, now: float) -> None:
        rate = (self._done - self._kept) / max(now - self._begun, 1e-9)
        of = f" of {self._total}" if self._total is not None else ""
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._total is not None and rate else ""
        sys.stderr.write(f"\r{self._done}{of} rows, {rate:.0f} rows/s{left}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        if self._on and self._done:
            self._write(time.monotonic())
            sys.stderr.write("\n")
