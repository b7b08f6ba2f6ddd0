"""Waiting for a state, where a fixed pause would be too short on a slow machine and too long on a quick one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.stopwatch import Stopwatch

PATIENCE = 20.0
"""Seconds after which a state is taken for one that never comes."""


def until(met: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `met` gives when it is true at last; a state that doesn't come fails the test."""
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)
    return found


async def reached(met: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """As `until`, in an event loop."""
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, "it never became true"
        await asyncio.sleep(0.005)
    return found


@contextlib.contextmanager
def ctrl_c(when: Callable[[], Any]) -> Iterator[list[Stopwatch]]:
    """Ctrl-C is pressed a tenth of a second after `when` is true; the list has a watch that runs from then on."""
    pressed: list[Stopwatch] = []

    def press() -> None:
        until(when)
        time.sleep(0.1)
        pressed.append(Stopwatch())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield pressed
    finally:
        thread.join()
