"""What the processes of a server do first in a test: on SIGUSR1 they hang, on SIGUSR2 they are busy for a while.

Both happen in C, without giving another thread a turn: the event loop stands still, and so does everything else.
"""

from __future__ import annotations

import ctypes
import signal

BUSY = 2  # seconds


def prepare() -> None:
    signal.signal(signal.SIGUSR1, lambda number, frame: ctypes.PyDLL(None).sleep(1000))
    signal.signal(signal.SIGUSR2, lambda number, frame: ctypes.PyDLL(None).sleep(BUSY))
