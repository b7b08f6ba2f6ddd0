"""The turn to draw: PyTorch has one row of random numbers for the whole process, and runs train in threads of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["apart"]

turn = threading.RLock()
"""Who draws holds it. It is renewed in a child process: ask for it by `chance.turn`."""


def _renew() -> None:
    """A child process has no thread that could give back what the parent's run holds."""
    global turn
    turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def apart() -> Iterator[None]:
    """Random numbers that are drawn within are nobody's: the caller's don't move on, nor those of a run in another
    thread, which waits."""
    with turn, torch.random.fork_rng(devices=[]):
        yield
