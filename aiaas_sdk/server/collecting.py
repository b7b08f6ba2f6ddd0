"""The garbage collector of a process that only serves."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["rare_collections"]

_YOUNG = 10_000
"""New objects between two collections. With 64 requests under way Python's 700 are there every other turn of the loop,
and a third of a small request's time went into walking the models' own objects; nothing of a request is a cycle."""


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Collect more rarely for the length of a `with`. Not for a process that has work of its own beside serving."""
    before = gc.get_threshold()
    gc.set_threshold(max(_YOUNG, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
