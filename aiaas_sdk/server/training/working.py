"""The process that does one job: what goes wrong in it (a crash, too much memory) harms no serving.

It holds the job's lock, tells events into the job's file, and ends with the server: the pipe to it is its lifeline.

    "stop" on the pipe        it ends within a step, after a checkpoint
    the pipe's end            the server was killed, and so is this; its checkpoints are whole
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.bundle import versions
from aiaas_sdk.errors import AiaasError, InputError, TrainingError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.server.training.locking import locked
from aiaas_sdk.server.training.records import CHECKPOINTS, EVENTS, TRAINING, VALIDATION, Teller
from aiaas_sdk.wire import rowfile

__all__ = ["STOP", "Order", "work"]

logger = logging.getLogger("aiaas_sdk.server")

STOP = "stop"
_PATIENCE = 30.0
"""Seconds for which the process of a killed server may take to end."""
_OFTEN = 30.0
"""Seconds between two checkpoints, where nobody said how often."""
_MANNERS = 5
"""By how much the system should favour serving over training."""


@dataclass(frozen=True)
class Order:
    """One job.

    Attributes:
        folder: of the job.
        address, options: of the model that is trained a copy of.
        fit: the settings.
        begun: when the job was first begun, in seconds since 1970.
        prepare: what the process does first: imports architectures, sets up logging.
    """

    folder: Path
    address: str
    options: Mapping[str, Any]
    fit: Mapping[str, Any]
    begun: float
    prepare: Callable[[], None] | None


def work(order: Order, channel: Connection) -> None:
    """What the process does. All that is to be said stands in the job's events."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it, too; the server tells it what to do
    if hasattr(os, "nice"):
        os.nice(_MANNERS)
    stop = threading.Event()
    threading.Thread(target=_hear, args=(channel, stop), daemon=True).start()
    with locked(order.folder / "lock", _PATIENCE):
        teller = Teller(order.folder / EVENTS)
        try:
            _guarded(order, teller, stop)
        finally:
            teller.close()
    logging.shutdown()
    os._exit(0)  # all is on disk, and somebody may wait: torch takes a second to leave by itself


def _hear(channel: Connection, stop: threading.Event) -> None:
    try:
        while channel.recv() == STOP:
            stop.set()
    except (EOFError, OSError):
        os._exit(1)


def _guarded(order: Order, teller: Teller, stop: threading.Event) -> None:
    try:
        _train(order, teller, stop)
    except AiaasError as error:
        teller.tell(_failed(error))
    except MemoryError:
        teller.tell(
            _failed(TrainingError("there was too little memory", hint="Give a smaller batch_size, or fewer rows"))
        )
    except Exception as error:
        logger.error("a job failed", exc_info=error)
        teller.tell(_failed(TrainingError(f"the job failed with {type(error).__name__}; the server's log has more")))


def _failed(error: AiaasError) -> dict[str, Any]:
    told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"type": "ended", "status": "failed", "error": told}


def _train(order: Order, teller: Teller, stop: threading.Event) -> None:
    if order.prepare is not None:
        order.prepare()
    from aiaas_sdk.api import load

    if teller.told and (version := made(order)) is not None:
        teller.tell({"type": "ended", "status": "succeeded", "version": version})
        return
    with load(order.address, **order.options) as model:
        info = model.info()
        settings = dict(order.fit)
        if settings["checkpoint_steps"] is None and settings["checkpoint_seconds"] is None:
            settings["checkpoint_seconds"] = _OFTEN
        settings |= {"checkpoint": str(order.folder / CHECKPOINTS), "resume": True}
        x, y = _rows(order.folder / TRAINING, info)
        if (order.folder / VALIDATION).exists():
            settings["validation"] = _rows(order.folder / VALIDATION, info)
        run = model.fit(x, y, **settings)
        threading.Thread(target=_stopping, args=(stop, run), daemon=True).start()
        for event in run.events():
            if (told := _tellable(event)) is not None:
                teller.tell(told)


def made(order: Order) -> str | None:
    """The version that this job made already, where it was killed after that and before it could tell so.

    It came after the job began, from the same version, by the same settings: one job is done at a time.
    """
    from aiaas_sdk.api import load

    parent = parse(order.address)
    for version in reversed(versions(Path(parent.target))):
        if int(version) <= int(parent.version or 0):
            break
        with load(f"{parent.scheme}:{parent.target}@{version}", **order.options) as model:
            facts = model.info().metadata
        lineage = facts.get("lineage") or {}
        settings = lineage.get("settings") or {}
        if (
            _seconds(facts.get("created")) >= int(order.begun)
            and (lineage.get("parent") or {}).get("version") == parent.version
            and all(settings.get(name) == order.fit[name] for name in order.fit.keys() & settings.keys())
        ):
            return version
    return None


def _seconds(created: Any) -> float:
    try:
        return datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


def _stopping(stop: threading.Event, run: Any) -> None:
    stop.wait()
    run.cancel()


def _tellable(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """An event without the paths of this machine. That it was stopped is told by who had it stopped."""
    if event["type"] == "checkpoint":
        return {name: value for name, value in event.items() if name != "path"}
    if event["type"] != "ended":
        return event
    if event["status"] == "cancelled":
        return None
    told = {name: value for name, value in event.items() if name != "address"}
    return {**told, "version": parse(event["address"]).version} if "address" in event else told


def _rows(path: Path, info: ModelInfo) -> tuple[Any, Any]:
    """x and y of a file. Its pages are read as they are used, and what is changed in memory isn't in the file."""
    inputs, outputs = (tuple(spec.name for spec in specs) for specs in (info.inputs, info.outputs))
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise InputError("the file is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    x, y = rowfile.sides(rowfile.decode(data), inputs, outputs)
    return x, {name: tensor.array for name, tensor in y.items()}
