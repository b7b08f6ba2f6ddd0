"""Threads for blocking work.

`concurrent.futures` waits at exit for whatever its threads still do, and a child process inherits its threads as
numbers without threads. These are daemons, which a hanging call can't keep the process alive with, and a child
process starts its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["Workers"]

Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Workers(Executor):
    """At most `count` daemon threads, started as they are needed."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._idle: SimpleQueue[None] = SimpleQueue()  # as many entries as threads that wait for a task
        self._threads: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of the work; RuntimeError after `shutdown`."""
        if self._process != os.getpid():
            self._reset()
        future: Future[Any] = Future()
        with self._guard:
            if self._closed:
                raise RuntimeError("these workers were shut down")
            self._see_to_a_thread()
        self._tasks.put((future, fn, args, kwargs))
        return future

    def _see_to_a_thread(self) -> None:
        if self.lost:  # whether it was idle isn't known any more
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._start()
            return
        try:
            self._idle.get_nowait()
        except Empty:
            if len(self._threads) < self._count:
                self._start()

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, args=(self._tasks, self._idle), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    @property
    def lost(self) -> bool:
        """A thread has died, with what it was doing: something was raised in it from outside, say."""
        return not self._closed and not all(thread.is_alive() for thread in self._threads)

    def mended(self) -> bool:
        """Whether a thread was lost; then there is another in its place."""
        with self._guard:
            if self._process != os.getpid() or not self.lost:
                return False
            self._see_to_a_thread()
            return True

    def _work(self, tasks: SimpleQueue[Task | None], idle: SimpleQueue[None]) -> None:
        """A thread's life. It takes no lock: at exit a daemon may stop anywhere, and would keep it for ever."""
        while (task := tasks.get()) is not None:
            self._do(*task)
            del task  # or its result would live until the next one comes
            idle.put(None)

    def _do(self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what is queued, or cancel that; never waits."""
        if self._process != os.getpid():
            self._reset()
        self._closed = True
        try:
            while cancel_futures:
                if (task := self._tasks.get_nowait()) is not None:
                    task[0].cancel()
        except Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
