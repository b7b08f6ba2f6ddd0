"""While requests are refused, the event loop doesn't interrupt the models.

Refusals come many at a time, and where all cores are at work each would take one from a model's thread
for a moment, which costs both what they had in the caches. So for as long as some are refused the kernel is told that
the loop's thread can wait until a core is free, or its turn has come (SCHED_BATCH, sched(7), Linux): it finds several
requests then, and is done with them sooner. Refusals come some milliseconds later by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

__all__ = ["yield_to_models"]

_SPAN = 1.0
"""Seconds after the last refusal."""


class _Thread(threading.local):
    """Of an event loop's thread: whether it yields, and until when."""

    yields = False
    until = 0.0


_thread = _Thread()


def yield_to_models() -> None:
    """A request is refused now, because so many wait."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    _thread.until = loop.time() + _SPAN
    if not _thread.yields and _change(was="SCHED_OTHER", to="SCHED_BATCH"):
        _thread.yields = True
        loop.call_later(_SPAN, _look, loop)


def _look(loop: asyncio.AbstractEventLoop) -> None:
    if (left := _thread.until - loop.time()) > 0:
        loop.call_later(left, _look, loop)
        return
    _thread.yields = False
    _change(was="SCHED_BATCH", to="SCHED_OTHER")


def _change(was: str, to: str) -> bool:
    """Another policy for this thread; whoever gave it one of his own keeps that."""
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == getattr(os, was):
                os.sched_setscheduler(0, getattr(os, to), os.sched_param(0))
                return True
    return False
