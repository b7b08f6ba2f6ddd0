"""A training run as its caller sees it: `TrainingRun` and its awaited twin, over a run here or a job there.

What a run does is told by events (`records.training.Event`); status and history follow from them. A `Source` brings
them: `Here` is a thread of this process.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aiaas_sdk.engine import Engine
from aiaas_sdk.errors import AiaasError, DeadlineExceededError, TrainingError
from aiaas_sdk.exits import end_at_exit
from aiaas_sdk.flow import Flow, adrive, drive, wait
from aiaas_sdk.records.training import ENDED, Event, Status

__all__ = ["AsyncTrainingRun", "Here", "Log", "Source", "TrainingRun"]

logger = logging.getLogger("aiaas_sdk.training")

LEAVING = 10.0
"""Seconds that a run may take at the interpreter's exit to end its step."""


class Log:
    """The events of a run, in order, and what follows from them. Safe across threads."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.status: Status = "queued"
        self.history: dict[str, list[float]] = {}
        self.address: str | None = None
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have each further event told to it, too."""
        self._listeners.append(listener)

    def add(self, event: Event) -> None:
        """One more event; `time` is put in where it isn't there."""
        told: dict[str, Any] = {"time": time.time(), **event}
        if told["type"] == "started":
            self.status = "running"
            self.history = {name: list(values) for name, values in told.get("history", {}).items()}
        elif told["type"] == "epoch":
            for name, value in told["metrics"].items():
                self.history.setdefault(name, []).append(value)
        elif told["type"] == "ended":
            self.address = told.get("address")
            self.status = told["status"]
        self.events.append(told)
        for listener in self._listeners:
            listener(told)


class Source(Protocol):
    """Where the events of a run come from.

    Attributes:
        id: of the run.
        log: what has come so far.
        remote: whether asking it needs the connections of the model.
        failure: what ended it, once it has failed.
    """

    remote: ClassVar[bool]
    id: str
    log: Log

    @property
    def failure(self) -> BaseException | None: ...

    def more(self, after: int) -> Flow[None]:
        """Until `log` has more than so many events, or the run has ended."""
        ...

    def cancel(self) -> Flow[None]:
        """Ask it to end; it does so within a step."""
        ...


class Here:
    """A run in a thread of this process.

    Args:
        work: does it: is handed a function that takes events, and one that says whether it should end. It gives the
            address of the new version, or None where it was told to end.
    """

    remote: ClassVar[bool] = False

    def __init__(self, work: Callable[[Callable[[Event], None], Callable[[], bool]], str | None]) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.log = Log()
        self.failure: BaseException | None = None
        self._work = work
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._thread = threading.Thread(target=self._run, name=f"aiaas-fit-{self.id}", daemon=True)

    def begin(self) -> Here:
        self._thread.start()
        return end_at_exit(self, Here._leave)

    def _leave(self) -> None:
        """The interpreter ends: a thread in the midst of a step could crash it."""
        self._stop.set()
        self._thread.join(LEAVING)

    def _run(self) -> None:
        try:
            address = self._work(self._told, self._stop.is_set)
        except BaseException as error:
            self.failure = error
            self._told({"type": "ended", "status": "failed", "error": _facts(error)})
        else:
            ended = {"status": "cancelled"} if address is None else {"status": "succeeded", "address": address}
            self._told({"type": "ended", **ended})

    def _told(self, event: Event) -> None:
        with self._guard:
            self.log.add(event)
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def more(self, after: int) -> Flow[None]:
        with self._guard:
            if len(self.log.events) > after or self.log.status in ENDED:
                return
            future: Future[None] = Future()
            self._waiting.append(future)
        yield from wait(future, "the training run")

    def cancel(self) -> Flow[None]:
        self._stop.set()
        yield from ()


def _facts(error: BaseException) -> dict[str, Any]:
    known = error if isinstance(error, AiaasError) else None
    return {
        "type": type(error).__name__,
        "message": known.message if known else str(error),
        "hint": known.hint if known else None,
    }


class _Run:
    """What both faces share."""

    def __init__(self, source: Source, engine: Engine, load: Callable[[str], Any]) -> None:
        self._source, self._engine, self._load = source, engine, load
        if source.remote:
            engine.lease()
            weakref.finalize(self, engine.release)

    @property
    def id(self) -> str:
        """Of this run; a job's is the endpoint's."""
        return self._source.id

    @property
    def status(self) -> Status:
        """ "queued", "running", "succeeded", "failed" or "cancelled"; of a job what was last heard."""
        return self._source.log.status

    @property
    def history(self) -> Mapping[str, Sequence[float]]:
        """By name, one value an epoch: "loss", the metrics, and both with `validation_` before them."""
        return {name: tuple(values) for name, values in self._source.log.history.items()}

    def plot(self, path: str | PathLike[str]) -> Path:
        """Write the history as curves over the epochs.

        Args:
            path: of a .png file.

        Raises:
            TrainingError: no epoch has ended yet. BackendNotInstalledError: pillow isn't installed.
        """
        from aiaas_sdk.plotting import plot

        if not self.history:
            raise TrainingError(f"the run {self.id} has ended no epoch yet", hint="wait() for it, or for an event")
        return plot(self.history, Path(path))

    def _until(self, timeout: float | None) -> float | None:
        return None if timeout is None else time.monotonic() + timeout

    def _left(self, error: DeadlineExceededError) -> DeadlineExceededError:
        error.hint = "The run goes on; wait again, or cancel() it"
        return error

    def _ended(self) -> Any:
        """The new model, or what is raised in its place."""
        log, failure = self._source.log, self._source.failure
        if log.address is not None:
            return self._load(log.address)
        if failure is not None:
            raise failure
        raise TrainingError(
            f"the run {self.id} was cancelled", hint="fit(..., resume=True) goes on from its last checkpoint"
        )

    def _waited(self) -> Flow[None]:
        while self._source.log.status not in ENDED:
            yield from self._source.more(len(self._source.log.events))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"


class TrainingRun(_Run):
    """A training run, here or as a job on an endpoint. It goes on whether somebody waits for it or not."""

    def events(self) -> Iterator[Event]:
        """All that it told and tells, from the beginning to its end; see `aiaas_sdk.records.training.Event`."""
        events, given = self._source.log.events, 0
        while given < len(events) or self.status not in ENDED:
            if given == len(events):
                drive(self._source.more(given), self._engine.sender)
            yield from events[given : (given := len(events))]

    def wait(self, timeout: float | None = None) -> TrainingRun:
        """Wait for its end, however it ends.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            DeadlineExceededError: it hasn't ended by then; it goes on.
        """
        try:
            drive(self._waited(), self._engine.sender, self._until(timeout))
        except DeadlineExceededError as error:
            raise self._left(error) from None
        return self

    def cancel(self) -> None:
        """Ask it to end: it does so within a step, and keeps its last checkpoint. Harmless when it has ended."""
        drive(self._source.cancel(), self._engine.sender)

    def result(self) -> Any:
        """Wait for its end, and load the new version, with the options of the model that was trained.

        Raises:
            TrainingError: it failed (`history` is kept), or was cancelled.
        """
        return self.wait()._ended()


class AsyncTrainingRun(_Run):
    """The awaited twin of `TrainingRun`: the same names."""

    async def events(self) -> AsyncIterator[Event]:
        """As `TrainingRun.events`: `async for event in run.events()`."""
        events, given = self._source.log.events, 0
        while given < len(events) or self.status not in ENDED:
            if given == len(events):
                await adrive(self._source.more(given), self._engine.async_sender)
            for event in events[given : (given := len(events))]:
                yield event

    async def wait(self, timeout: float | None = None) -> AsyncTrainingRun:
        """As `TrainingRun.wait`."""
        try:
            await adrive(self._waited(), self._engine.async_sender, self._until(timeout))
        except DeadlineExceededError as error:
            raise self._left(error) from None
        return self

    async def cancel(self) -> None:
        """As `TrainingRun.cancel`."""
        await adrive(self._source.cancel(), self._engine.async_sender)

    async def result(self) -> Any:
        """As `TrainingRun.result`."""
        return (await self.wait())._ended()
