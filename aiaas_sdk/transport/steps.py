"""The transport's work as generators, and what they wait for.

Connecting, sending and receiving are written once, as *steps*: a generator over sockets that never block. It
yields what it waits for and is sent the outcome; a wait that fails (the moment `until` has passed: TimeoutError;
cancelled; Ctrl-C) is thrown into it, and the steps clean up after themselves. `plain.perform` waits with poll,
`awaited.perform` in an event loop. Nothing is bound to a loop or thread between two waits, so one list of kept
connections serves all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = ["READ", "WRITE", "Blocking", "Ready", "Step", "Steps", "blocking", "left", "ready"]

T = TypeVar("T")

READ, WRITE = 1, 2


class Ready(NamedTuple):
    """Until the socket `fd` can be read or written (READ, WRITE or both); gives which."""

    fd: int
    want: int
    until: float | None


class Blocking(NamedTuple):
    """Until `work` has been done by a daemon thread, which is left behind when the wait fails."""

    work: Callable[[], Any]
    until: float | None


Step: TypeAlias = Ready | Blocking
Steps: TypeAlias = Generator[Step, Any, T]


# typed for `yield from`; whoever performs the steps sends exactly what each promises, hence the ignores
def ready(fd: int, want: int, until: float | None) -> Steps[int]:
    return (yield Ready(fd, want, until))  # type: ignore[no-any-return]


def blocking(work: Callable[[], T], until: float | None) -> Steps[T]:
    return (yield Blocking(work, until))  # type: ignore[no-any-return]


def left(until: float | None) -> float | None:
    """Seconds until then, None for ever. Raises TimeoutError when it is past."""
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
