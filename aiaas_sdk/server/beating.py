"""The heartbeat of a process that serves with others: how the first one notices that it hangs.

Its event loop counts, each second, in memory that both see. A process that is stopped, or stuck in a C call that gives
nobody else a turn, counts no more. One that is merely busy does: models compute beside the loop, and what holds the
interpreter for some seconds (a large document that is read) is far below the limit. That is generous, because ending a
process loses what it was asked.
"""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["SILENCE", "Beats", "Silence", "beating", "beats"]

SILENCE = 60.0
"""Seconds without a beat after which a process hangs."""
_BEAT = 1.0  # seconds between two
_TURN = 1.0  # seconds of silence that count at most between two looks
_LAST_WORDS = 5.0  # seconds before the limit at which a process that can still do so says where it hangs
_STDERR = 2  # the descriptor: `sys.stderr` may be anything


class Beats(Protocol):
    """A count in shared memory."""

    value: int


def beats() -> Beats:
    """A new one, which can be given to a process when it is started."""
    made: Beats = multiprocessing.get_context("spawn").RawValue("Q", 0)
    return made


class Silence:
    """How long a process hasn't counted, as its starter sees it.

    What passes between two looks counts as a second at most: where both were stopped for a while (Ctrl-Z, a frozen
    container, a machine that sleeps), or the starter itself had no turn, nobody hung.
    """

    def __init__(self, beats: Beats) -> None:
        self._beats, self._heard = beats, beats.value
        self._looked = time.monotonic()
        self.seconds = 0.0

    def look(self) -> float:
        """The seconds up to now."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        count = self._beats.value
        self.seconds = 0.0 if count != self._heard else self.seconds + min(passed, _TURN)
        self._heard = count
        return self.seconds


def beating(beats: Beats, silence: float, ending: Callable[[], bool]) -> None:
    """Count from now on, in the running event loop.

    Args:
        beats: the count.
        silence: seconds without a beat after which this process is ended. Shortly before, a trace of its threads goes
            to stderr, from a thread that needs no turn of the interpreter.
        ending: whether the server is about to end, which has a limit and a trace of its own.
    """
    loop = asyncio.get_running_loop()

    def beat() -> None:
        beats.value += 1
        if not ending():
            faulthandler.dump_traceback_later(max(silence - _LAST_WORDS, silence / 2), file=_STDERR)
        loop.call_later(_BEAT, beat)

    beat()
