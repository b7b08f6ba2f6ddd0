"""One run on several processes: packs it, starts them, hears what they tell, and ends with them."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import errors
from aiaas_sdk.backends.torch.training import sharding
from aiaas_sdk.backends.torch.training.channel import LEAVE, STOP, Hearing, Worker
from aiaas_sdk.backends.torch.training.checkpoints import Checkpoints
from aiaas_sdk.backends.torch.training.processes import RESTARTS, Processes
from aiaas_sdk.backends.torch.training.running import Parent, divided, seed_of
from aiaas_sdk.backends.torch.training.travelling import Luggage, pack
from aiaas_sdk.errors import AiaasError, ConfigError, TrainingError, UnsupportedOperationError
from aiaas_sdk.records.training import Event, Fit
from aiaas_sdk.rows import Data

__all__ = ["launch"]

logger = logging.getLogger("aiaas_sdk.training")

TURN = 0.1
"""Seconds between two looks at what isn't heard: whether to stop, whether the processes have ended."""
SETTLING = 0.5
"""Seconds in which a worker's failure may turn out to be another one's death."""
STEPPING = 30.0
"""Seconds that the step has which is under way when the run is to end."""
LEAVING = 5.0
"""Seconds that the processes have to end when they are told to; then they are killed."""


def launch(
    parent: Parent,
    fit: Fit,
    data: Data,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints,
    told: Callable[[Event], None],
    stopped: Callable[[], bool],
) -> str | None:
    """As `running.run`, on `fit.workers` processes, which equals one process but for rounding.

    A process that dies takes the others with it, and all go on from the last checkpoint, `RESTARTS` times. What a
    process raises ends the run. None of them outlives this process.

    Raises:
        ConfigError: there aren't so many GPUs. UnsupportedOperationError: something can't be handed to them.
        TrainingError: they died too often, or one raised what is no error of ours.
    """
    _check(parent, fit)
    with _folder() as name, closing(Hearing()) as hearing:
        folder = Path(name)
        earlier = checkpoints.newest() if fit.resume else None
        if earlier is None:
            checkpoints.clear()
        seed = seed_of(fit, earlier)
        luggage = Luggage(
            parent,
            replace(fit, seed=seed, resume=True),  # who starts anew goes on
            divided(data, fit, seed),
            facts,
            checkpoints.folder,
            sharding.memory(parent.device, fit.workers),
        )
        threads = max(1, torch.get_num_threads() // fit.workers)
        reached = {"port": hearing.port, "token": hearing.token}
        pack(folder, luggage, {**reached, "threads": threads, "device": parent.device.type})
        processes = Processes(folder, fit.workers, uuid.uuid4().hex[:12])
        return _Course(hearing, processes, told, stopped).run()


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Closed to others. What a process holds open there can't be removed on every system."""
    return tempfile.TemporaryDirectory(prefix="aiaas-fit-", ignore_cleanup_errors=True)


def _check(parent: Parent, fit: Fit) -> None:
    if parent.device.type not in ("cpu", "cuda"):
        raise UnsupportedOperationError(
            f"workers is {fit.workers}, and {parent.device.type} can't be shared",
            hint='Give workers=1, or load(..., device="cpu")',
        )
    if parent.device.type == "cuda" and fit.workers > torch.cuda.device_count():
        raise ConfigError(
            f"workers is {fit.workers}, and this machine has {torch.cuda.device_count()} GPUs: each worker takes one",
            hint='Give fewer, or load(..., device="cpu")',
        )
    if fit.workers > fit.batch_size:
        raise ConfigError(
            f"workers is {fit.workers} and batch_size {fit.batch_size}: each worker takes its rows of every batch",
            hint="Give a larger batch_size, or fewer workers",
        )


class _Course:
    """The processes under way."""

    def __init__(
        self, hearing: Hearing, processes: Processes, told: Callable[[Event], None], stopped: Callable[[], bool]
    ) -> None:
        self._hearing, self._processes, self._told, self._stopped = hearing, processes, told, stopped
        self._lost: set[int] = set()
        self._round = 0
        self._failed: tuple[float, int, Mapping[str, Any]] | None = None
        self._stopping: float | None = None
        self._over = False
        self._address: str | None = None

    def run(self) -> str | None:
        try:
            while not (self._over or self._processes.ended):
                self._listen(TURN)
                self._look()
            while self._hearing.workers and not self._over:  # what they said last
                self._listen(TURN)
        finally:
            self._leave()
        if self._address is None and not self._over and self._stopping is None:
            raise self._died()
        return self._address

    # ------------------------------------------------------------ what is heard
    def _listen(self, seconds: float) -> None:
        for worker, message in self._hearing.turn(seconds):
            self._heard(worker, message)

    def _heard(self, worker: Worker, message: dict[str, Any] | None) -> None:
        if message is None:
            if not worker.said:
                self._lost.add(worker.round)
        elif "hello" in message:
            self._came(worker)
        elif "event" in message:
            self._told(message["event"])
        elif "log" in message:
            logger.log(message["log"][0], "%s", message["log"][1])
        elif "failed" in message:
            worker.said = True
            if self._failed is None:
                self._failed = time.monotonic(), worker.round, {"rank": worker.rank, **message["failed"]}
        elif "ended" in message:
            worker.said = True
            if worker.rank == 0:
                self._address, self._over = message["ended"], True

    def _came(self, worker: Worker) -> None:
        if worker.round > self._round:
            self._round = worker.round
            logger.warning("a worker died; all go on from the last checkpoint (%d of %d)", worker.round, RESTARTS)
        if self._stopping is not None:
            self._hearing.tell(STOP)

    # ------------------------------------------------------------ what is looked at
    def _look(self) -> None:
        if self._stopped() and self._stopping is None:
            self._stopping = time.monotonic()
            self._hearing.tell(STOP)
        if self._stopping is not None and time.monotonic() - self._stopping > STEPPING:
            self._over = True
        if self._failed is None:
            return
        since, number, facts = self._failed
        if number in self._lost:  # it failed because another one died: the launcher sees to that
            self._failed = None
        elif time.monotonic() - since > SETTLING:
            self._over = True
            raise _error(facts)

    def _leave(self) -> None:
        """End all processes: those that come again, too, until the launcher has seen all of them end by themselves."""
        self._hearing.tell(LEAVE)
        begun = time.monotonic()
        while not self._processes.ended and time.monotonic() - begun < 2 * LEAVING:
            for worker, message in self._hearing.turn(TURN):
                if message is not None and "hello" in message:
                    self._hearing.tell(LEAVE)
                del worker
            if time.monotonic() - begun > LEAVING:
                for worker in self._hearing.workers:
                    with suppress(OSError):  # it has ended
                        os.kill(worker.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    def _died(self) -> TrainingError:
        words = self._processes.last_words()
        last = f" Its last words: {words.splitlines()[-1][:300]}" if words else ""
        return TrainingError(
            f"{self._processes.what_happened()}, and the run was started anew {self._round} times.{last}",
            hint="A kill often means that memory ran out: lower batch_size or workers. fit(..., resume=True) goes on "
            "from the last checkpoint",
        )


def _error(facts: Mapping[str, Any]) -> AiaasError:
    """What a worker raised, as it would have been raised here."""
    kind = getattr(errors, str(facts["type"]), None)
    if isinstance(kind, type) and issubclass(kind, AiaasError):
        found = kind(facts["message"], hint=facts["hint"])
    else:
        found = TrainingError(f"worker {facts['rank']} raised {facts['type']}: {facts['message']}")
    found.add_note(f"In worker {facts['rank']}:\n{facts['trace']}")
    return found
