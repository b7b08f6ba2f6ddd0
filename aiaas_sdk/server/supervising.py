"""Several processes that serve on one port: started together, started again where one dies, and ended together.

    this process: starts them, and keeps the port        each other one: a server as `serve` runs it alone
        ------------------ "end" ------------------>      drains and ends
        <------- the models' names, once it listens --
        <------- or an error -------------------------
        <------- a count, each second (`beating.py`) --
        the pipe's end, where this process was killed ->  drains and ends

A process listens only when its models are open, so that whoever is answered is answered by one that is ready. One that
listens and then counts no more for a minute hangs: it is killed, and another takes its place. Each is begun afresh, not
forked: neither threads nor a GPU outlive a fork.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection, reduction
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from os import PathLike
from typing import Any

from aiaas_sdk.errors import AiaasError, ConfigError, ModelNotReadyError
from aiaas_sdk.server.beating import Beats, Silence, beats
from aiaas_sdk.server.listening import reserved

__all__ = ["Job", "supervise"]

logger = logging.getLogger("aiaas_sdk.server")

END = "end"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before one that died is started again
_STEADY = 60.0  # seconds after which one that dies counts as a first
_MARGIN = 4.0  # seconds, above those that it was given, after which one that doesn't end is killed
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """What each process does; it is sent there.

    Attributes:
        targets, host, port, options: as `serve` has them.
        prepare: done first in each process: imports, logging. A function of a module.
        seconds: within which one ends that is told to.
        silence: seconds without a beat after which one hangs.
    """

    targets: Sequence[str | PathLike[str]]
    host: str
    port: int
    options: dict[str, Any] = field(repr=False)
    prepare: Callable[[], None] | None
    seconds: float
    silence: float

    @property
    def workers(self) -> int:
        return int(self.options["workers"])


def supervise(job: Job, listens: Callable[[socket.socket, tuple[str, ...]], None]) -> None:
    """Serve with several processes until SIGTERM or SIGINT; a second signal kills.

    Args:
        job: theirs.
        listens: given a socket that is bound to the port, and the models' names, once all of them listen.

    Raises:
        ConfigError: the port can't be listened on, or an option can't be sent to another process.
        AiaasError: what the first process that couldn't start says.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("several processes are started by the main thread", hint="Call serve there, or workers=1")
    _check_sendable(job)
    grpc_port = job.options.get("grpc_port")
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(reserved(job.host, job.port))
        if grpc_port is not None:
            stack.enter_context(reserved(job.host, grpc_port))
        pages = [stack.enter_context(_page()) for _ in range(job.workers)]
        buckets = stack.enter_context(_page())
        signals = stack.enter_context(_Signals())
        job = replace(job, port=kept.getsockname()[1])
        workers = [_Worker(job, number, pages, buckets) for number in range(job.workers)]
        stack.callback(_kill, workers)
        _Supervisor(job, workers, signals, lambda names: listens(kept, names)).run()


def _check_sendable(job: Job) -> None:
    try:
        reduction.ForkingPickler.dumps(job)
    except Exception as error:
        raise ConfigError(
            f"an option can't be sent to another process: {error}",
            hint="Serve with workers=1, or give plain values and functions of modules",
        ) from None


@contextlib.contextmanager
def _page() -> Iterator[int]:
    """A file that processes share. It has no name, so that nothing of it is left, however the server ends."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("aiaas-counts"), "r+b") as file:
            yield file.fileno()
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


def _kill(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.kill()


class _Signals:
    """The signals that ask for the end, counted; `reader` can be read where one has come."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> _Signals:
        self.count = 0
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._came) for number in self.NUMBERS}
        return self

    def _came(self, number: int, frame: Any) -> None:
        self.count += 1
        self.last = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self.reader.close()
        self._writer.close()


class _Worker:
    """One of the processes, and those that take its place."""

    def __init__(self, job: Job, number: int, pages: Sequence[int], buckets: int) -> None:
        self._job, self.number = job, number
        self._pages = [pages[number], *pages[:number], *pages[number + 1 :]]  # its own first
        self._buckets = buckets
        self.process: SpawnProcess | None = None
        self.channel: Connection | None = None
        self.names: tuple[str, ...] | None = None  # once it listens
        self._beats: Beats | None = None
        self._silence: Silence | None = None  # since it listens
        self.error: AiaasError | None = None
        self._pause, self._begun = _FIRST_PAUSE, 0.0
        self.due = 0.0  # the moment to start it

    def start(self) -> None:
        self.names, self.error, self._begun = None, None, time.monotonic()
        self._beats, self._silence = beats(), None
        self.channel, theirs = _SPAWN.Pipe()
        pages = [reduction.DupFd(page) for page in self._pages]
        shared = (pages, reduction.DupFd(self._buckets), self._beats)
        self.process = _SPAWN.Process(
            target=_work, args=(self._job, self.number, *shared, theirs), name=f"aiaas-server-{self.number}"
        )
        self.process.start()
        theirs.close()

    def hear(self) -> None:
        """Take in what it has said."""
        assert self.channel is not None
        try:
            while self.channel.poll():
                said = self.channel.recv()
                if isinstance(said, AiaasError):
                    self.error = said
                else:
                    self.names = said
        except (EOFError, OSError):  # it has ended, and `ended` takes care of that
            pass

    def hung(self) -> bool:
        """Whether it listened, and was silent for too long. Then it has been killed, and ends when the system says."""
        if self.process is None or self.names is None or self._beats is None:
            return False
        if self._silence is None:
            self._silence = Silence(self._beats)
        if self._silence.look() <= self._job.silence:
            return False
        self.process.kill()
        self.names = None
        return True

    def ended(self) -> int | None:
        """Its status, once, if it has ended."""
        if self.process is None or self.process.is_alive():
            return None
        self.hear()
        status = self.process.exitcode
        self._close()
        if time.monotonic() - self._begun > _STEADY:
            self._pause = _FIRST_PAUSE
        self.due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return status

    def end(self) -> None:
        """Ask it to finish what runs and end; one that doesn't listen yet has nothing to finish."""
        if self.process is None or self.channel is None:
            return
        if self.names is None:
            self.process.kill()
            return
        with contextlib.suppress(OSError):  # it has ended already
            self.channel.send(END)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self._close()

    def _close(self) -> None:
        if self.process is not None and self.channel is not None:
            self.process.join()
            self.process.close()
            self.channel.close()
        self.process = self.channel = None


class _Supervisor:
    """Keeps the processes running until the end is asked for."""

    def __init__(
        self, job: Job, workers: Sequence[_Worker], signals: _Signals, listens: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._job, self._workers, self._signals, self._listens = job, workers, signals, listens
        self._told = False
        self._last: float | None = None  # the moment of patience's end, once the end was asked for

    def run(self) -> None:
        while self._last is None or any(worker.process is not None for worker in self._workers):
            self._begin()
            self._wait()
            for worker in self._workers:
                self._look(worker)
            self._tell()
            self._see_to_the_end()

    def _begin(self) -> None:
        for worker in self._workers:
            if worker.process is None and self._last is None and time.monotonic() >= worker.due:
                worker.start()

    def _wait(self) -> None:
        watched: list[Any] = [self._signals.reader]
        for worker in self._workers:
            if worker.process is not None:
                watched += [worker.process.sentinel, worker.channel]
        connection.wait(watched, timeout=0.5)
        with contextlib.suppress(BlockingIOError):
            self._signals.reader.recv(4096)

    def _look(self, worker: _Worker) -> None:
        if worker.process is None:
            return
        pid = worker.process.pid
        worker.hear()
        if self._last is None and worker.hung():
            logger.error("process %s of the server hung for %.0f s and was killed", pid, self._job.silence)
        status = worker.ended()
        if status is None or self._last is not None:
            return
        if not self._told:
            raise worker.error or ModelNotReadyError(
                f"a process of the server ended with status {status} before it was ready", hint="Its log may say why"
            )
        why = worker.error or f"status {status}"
        pause = worker.due - time.monotonic()
        logger.error("process %s of the server ended: %s; another follows in %.1f s", pid, why, pause)

    def _tell(self) -> None:
        names = [worker.names for worker in self._workers]
        if not self._told and all(name is not None for name in names):
            self._told = True
            self._listens(names[0] or ())

    def _see_to_the_end(self) -> None:
        now = time.monotonic()
        if self._signals.count and self._last is None:
            self._last = now + self._job.seconds + _MARGIN
            for worker in self._workers:
                worker.end()
        if self._signals.count > 1:
            _kill(self._workers)
            signal.signal(self._signals.last, signal.SIG_DFL)
            signal.raise_signal(self._signals.last)
        if self._last is not None and now > self._last:
            logger.error("the server's processes didn't end in time; they are killed")
            _kill(self._workers)


def _work(job: Job, number: int, pages: Sequence[Any], buckets: Any, beats: Beats, channel: Connection) -> None:
    """What each process does."""
    # Ctrl-C reaches them all at once, and the first process tells the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if job.prepare is not None:
            job.prepare()
        from aiaas_sdk.server.running import serve_shared

        _share_buckets(buckets.detach(), number, job.workers)
        serve_shared(job, number, [page.detach() for page in pages], beats, channel)
    except AiaasError as error:
        channel.send(error)
        raise SystemExit(1) from None


def _share_buckets(file: int, number: int, workers: int) -> None:
    from aiaas_sdk.server.buckets import share

    share(file, number, workers)
    os.close(file)
