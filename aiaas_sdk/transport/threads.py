"""Work in a thread that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["started"]

T = TypeVar("T")


def started(work: Callable[[], T]) -> Future[T]:
    """The work's outcome to be. A daemon thread: a resolver that hangs mustn't keep the process from ending."""
    future: Future[T] = Future()
    threading.Thread(target=_carry_out, args=(work, future), name="aiaas-transport", daemon=True).start()
    return future


def _carry_out(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
