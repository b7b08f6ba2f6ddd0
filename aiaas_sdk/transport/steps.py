"""The transport's work as generators, and what they wait for.

Connecting, sending and receiving are written once, as *steps*: a generator over sockets that never block. It
yields what it waits for and is sent the outcome; a wait that fails (the moment `until` has passed: TimeoutError;
cancelled; Ctrl-C) is thrown into it, and the steps clean up after themselves. `plain.perform` waits with poll,
`awaited.perform` in an event loop. Nothing is bound to a loop or thread between two waits, so one list of kept
connections serves all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiaas_sdk.transport.threads import started

__all__ = [
    "READ",
    "WRITE",
    "Awaited",
    "Ready",
    "Settled",
    "Step",
    "Steps",
    "awaited",
    "blocking",
    "left",
    "ready",
    "settled",
]

T = TypeVar("T")

READ, WRITE = 1, 2


class Ready(NamedTuple):
    """Until the socket `fd` can be read or written (READ, WRITE or both); gives which."""

    fd: int
    want: int
    until: float | None


class Settled(NamedTuple):
    """Until a future has its result, which it gives. Who yields it knows what to do with one that came too late."""

    future: Future[Any]
    until: float | None


class Awaited(NamedTuple):
    """Until a coroutine is over, which runs in the caller's event loop and is cancelled when the wait fails.

    Where there is no loop `otherwise` does the same in a daemon thread; None where nothing else can.
    """

    work: Callable[[], Coroutine[Any, Any, Any]]
    otherwise: Callable[[], Any] | None
    until: float | None


Step: TypeAlias = Ready | Settled | Awaited
Steps: TypeAlias = Generator[Step, Any, T]


# typed for `yield from`; whoever performs the steps sends exactly what each promises, hence the ignores
def ready(fd: int, want: int, until: float | None) -> Steps[int]:
    return (yield Ready(fd, want, until))  # type: ignore[no-any-return]


def settled(future: Future[T], until: float | None) -> Steps[T]:
    return (yield Settled(future, until))  # type: ignore[no-any-return]


def blocking(work: Callable[[], T], until: float | None) -> Steps[T]:
    """Work for a daemon thread, which is left behind when the wait fails."""
    return (yield Settled(started(work), until))  # type: ignore[no-any-return]


def awaited(
    work: Callable[[], Coroutine[Any, Any, T]], otherwise: Callable[[], T] | None, until: float | None
) -> Steps[T]:
    return (yield Awaited(work, otherwise, until))  # type: ignore[no-any-return]


def left(until: float | None) -> float | None:
    """Seconds until then, None for ever. Raises TimeoutError when it is past."""
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
