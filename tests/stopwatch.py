"""The time that something took, less what the machine and the garbage collector kept it waiting.

A promise such as "back at once" or "50 ms after the deadline" is about our code. On a machine that is busy with other
things a thread that is ready may wait for a processor much longer than that; so an upper bound is held against the time
without these waits, which Linux counts for each thread, and a lower bound against the whole time. On a calm machine the
two are the same. What the code itself waits for (a sleep, a lock, a socket, the interpreter's own lock) is never
taken off.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

_paused = 0.0
_pause_began = 0.0


def _collecting(phase: str, _info: dict[str, int]) -> None:
    global _paused, _pause_began
    if phase == "start":
        _pause_began = time.monotonic()
    else:
        _paused += time.monotonic() - _pause_began


gc.callbacks.append(_collecting)


class Took:
    """Seconds of which a part isn't ours: `<` looks at ours, `>` at all of them."""

    def __init__(self, seconds: float, kept: float) -> None:
        self.seconds, self.kept = seconds, kept

    @property
    def ours(self) -> float:
        return self.seconds - self.kept

    def __lt__(self, most: float) -> bool:
        return self.ours < most

    def __le__(self, most: float) -> bool:
        return self.ours <= most

    def __gt__(self, least: float) -> bool:
        return self.seconds > least

    def __ge__(self, least: float) -> bool:
        return self.seconds >= least

    def __repr__(self) -> str:
        return f"{self.seconds:.3f} s, {self.kept:.3f} s of them kept by the machine"


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._waits, self._paused = _waits(), _paused
        self._begun = time.monotonic()

    def took(self, seconds: float | None = None) -> Took:
        """The time until now; or `seconds` that somebody else measured while this watch ran."""
        took = time.monotonic() - self._begun if seconds is None else seconds
        waits = sum(max(0, now - self._waits.get(thread, 0)) for thread, now in _waits().items())
        return Took(took, waits / 1e9 + _paused - self._paused)


def _waits() -> dict[str, int]:
    """Nanoseconds that each thread of this process has waited for a processor so far, by the thread's number."""
    found: dict[str, int] = {}
    if sys.platform != "linux":
        return found
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1])
    return found


def unhurried(words: str) -> str:
    """What a process wrote to stderr, without what asyncio says in `-X dev` of each turn that took 0.1 s or more."""
    kept = [
        line for line in words.splitlines(keepends=True) if not (line.startswith("Executing <") and " took " in line)
    ]
    return "".join(kept)
