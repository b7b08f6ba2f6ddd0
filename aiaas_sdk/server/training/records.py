"""Jobs on disk: what was asked for, what became of it, and what the run told."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aiaas_sdk.records.training import ENDED, Event
from aiaas_sdk.server.training.folder import Records, storing
from aiaas_sdk.wire import jobs as wire

__all__ = ["CANCEL", "CHECKPOINTS", "EVENTS", "TRAINING", "VALIDATION", "JobRecords", "Tail", "Teller", "fingerprint"]

CANCEL, CHECKPOINTS, EVENTS, TRAINING, VALIDATION = "cancel", "checkpoints", "events.jsonl", "training", "validation"
_RESUMED = 7 * 24 * 3600.0
"""Seconds for which an ended job keeps what another can go on from."""
_KEPT = 90 * 24 * 3600.0
"""Seconds for which an ended job stays in the lists."""


def fingerprint(asked: Mapping[str, Any]) -> str:
    """Equal for jobs of which one can go on where the other stopped, but for seeds and the version that is trained."""
    fit = {name: value for name, value in asked["fit"].items() if name not in ("seed", "resume")}
    told = [asked["caller"], asked["model"], asked["digests"], fit]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class JobRecords(Records):
    """The jobs of all callers. Requests add jobs and marks; everything else is written by whoever runs them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "jobs", "ftjob-")

    def add(self, record: Mapping[str, Any], files: Mapping[str, Path], checkpoints: Path | None) -> bool:
        """Put a job into place with its rows; False where it is there already.

        Args:
            files: the rows, by their name in the job's folder. They are linked: who deletes a file harms no job.
            checkpoints: of an earlier job, which this one goes on from.
        """
        aside, placed = self.aside(), False
        try:
            with storing():
                for name, path in files.items():
                    _link(path, aside / name)
                if checkpoints is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(checkpoints, aside / CHECKPOINTS)
            placed = self.place(aside, record)
            return placed
        finally:
            if not placed:
                if checkpoints is not None:  # the earlier job keeps what another can go on from
                    with contextlib.suppress(OSError):
                        os.rename(aside / CHECKPOINTS, checkpoints)
                self.discard(aside)

    def cancel(self, id: str) -> None:
        """Note that somebody wants it to end."""
        with storing(), contextlib.suppress(FileNotFoundError):
            (self.path(id) / CANCEL).touch()

    def cancelled(self, id: str) -> bool:
        return (self.path(id) / CANCEL).exists()

    def end(self, record: dict[str, Any], **facts: Any) -> None:
        """Write how a job ended, and let go of its rows."""
        record.update(facts, finished_at=int(time.time()))
        self.write(record)
        for name in (TRAINING, VALIDATION):
            (self.path(record["id"]) / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        super().sweep()
        now = time.time()
        for id in self.ids():
            record = self.known(id)
            if record is None or record["status"] not in ENDED:
                continue
            age = now - (record.get("finished_at") or now)
            if age > _KEPT:
                self.remove(id)
            elif age > _RESUMED:
                shutil.rmtree(self.path(id) / CHECKPOINTS, ignore_errors=True)

    def tail(self, id: str, known: int = 0) -> Tail:
        return Tail(self.path(id) / EVENTS, known)


def _link(path: Path, into: Path) -> None:
    try:
        os.link(path, into)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK):
            raise
        shutil.copyfile(path, into)  # a file system without links


# ---------------------------------------------------------------- events
class Teller:
    """Writes the events of a job, each one whole. A line that a killed process left half is cut off first.

    Attributes:
        told: whether anything was told before.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        data = path.read_bytes()
        self.told = b"\n" in data
        if not data.endswith(b"\n"):
            self._file.truncate(data.rfind(b"\n") + 1)

    def tell(self, event: Event) -> None:
        self._file.write(wire.line({"time": time.time(), **event}))
        self._file.flush()
        if event["type"] == "ended":
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Tail:
    """Reads the events of a job, as far as they are whole, and goes on where it was.

    Args:
        known: how many needn't be given.
    """

    def __init__(self, path: Path, known: int = 0) -> None:
        self._path, self._known = path, known
        self._at = self._count = 0

    def more(self) -> list[tuple[int, dict[str, Any]]]:
        """What came since, with its place."""
        return [(place, event) for place, event in self._lines() if place >= self._known]

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= self._at:
                    return
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:  # nothing was told yet
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._count += 1
            yield self._count - 1, json.loads(line)
