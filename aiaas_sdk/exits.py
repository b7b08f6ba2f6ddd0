"""What is half done when the interpreter ends.

It is ended while threads still run. After that a finaliser may wait for ever, for a lock that a stopped daemon keeps.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["end_at_exit"]

T = TypeVar("T")

_begun: dict[int, tuple[weakref.ref[Any], Callable[[Any], object]]] = {}


def end_at_exit(work: T, end: Callable[[T], object]) -> T:
    """Have `end(work)` called at the interpreter's exit, if the work is still there. Gives the work."""
    key = id(work)
    _begun[key] = weakref.ref(work, lambda _: _begun.pop(key, None)), end
    return work


@atexit.register
def _end_all() -> None:
    for reference, end in list(_begun.values()):
        work = reference()
        if work is not None:
            with contextlib.suppress(Exception):  # it runs in a thread just now, or has failed: nobody is left to hear
                end(work)
