"""Who does the jobs: one process of the server, the oldest job first, one at a time.

With several workers it is the one that got hold of the lock; where it dies, another takes over. It alone writes what
becomes of a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import pickle
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.records.training import ENDED
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.training.locking import hold
from aiaas_sdk.server.training.records import EVENTS, JobRecords, Teller
from aiaas_sdk.server.training.working import STOP, Order, work

__all__ = ["Runner"]

logger = logging.getLogger("aiaas_sdk.server")

_LOOK = 0.2
"""Seconds between two looks at the jobs."""
_AGAIN = 5.0
"""Seconds until the next try where jobs, or one of them, can't be gone on with: the disk is full, a record damaged."""
_TAKE_OVER = 1.0
"""Seconds between two tries to get hold of the lock."""
_STOPPING = 20.0
"""Seconds that a cancelled job may take to end its step."""
_LEAVING = 2.0
"""Seconds that it may take where the server ends; its checkpoints are whole if it is killed then."""
_SWEEP = 3600.0
_GUARD = 'A script that serves with jobs must do so below if __name__ == "__main__"'
_SPAWN = multiprocessing.get_context("spawn")


class Runner:
    """Does the jobs of a folder.

    Args:
        folder: of the server's jobs; the lock is there.
        records: the jobs.
        hosting: the models.
        sweep: removes what is old.

    Attributes:
        prepare: what a job's process does first.

    Raises:
        ConfigError: this is the process of a job, which imports the program that serves.
    """

    def __init__(self, folder: Path, records: JobRecords, hosting: Hosting, sweep: Callable[[], None]) -> None:
        _check_begun()
        self._lock, self._records, self._hosting, self._sweep = folder / "lock", records, hosting, sweep
        self.prepare: Callable[[], None] | None = None
        self._done: set[str] = set()
        self._later: dict[str, float] = {}  # jobs that couldn't be gone on with, and when they are tried again
        self._recovered = False
        self._swept: float | None = None

    async def run(self) -> None:
        """Until it is cancelled; a job that runs then is put back into the queue, with its checkpoint."""
        while (lock := self._held()) is None:
            await asyncio.sleep(_TAKE_OVER)
        with lock:
            while True:
                pause = _LOOK
                try:
                    if await self._step():
                        continue
                except Exception:  # nobody else does the jobs: whatever it is, the next one is to be done
                    logger.exception("the jobs can't be read or written; the next try is in %g s", _AGAIN)
                    pause = _AGAIN
                await asyncio.sleep(pause)

    def _held(self) -> Any:
        """The lock; None where another process has it, or it can't be had now."""
        try:
            return hold(self._lock)
        except OSError as error:
            logger.error("the lock of the jobs can't be opened: %s", error)
            return None

    async def _step(self) -> bool:
        """Do the oldest job that waits; False where none does."""
        if not self._recovered:
            self._recover()
            self._recovered = True
        now = time.monotonic()
        if self._swept is None or now - self._swept > _SWEEP:
            self._swept = now
            await asyncio.to_thread(self._sweep)
        if (record := self._next()) is None:
            return False
        try:
            await self._do(record)
        except Exception:
            logger.exception("job %s can't be gone on with; the next try is in %g s", record["id"], _AGAIN)
            self._later[record["id"]] = time.monotonic() + _AGAIN
        return True

    def _recover(self) -> None:
        """What ran when the server was killed goes on."""
        for id in self._records.ids():
            record = self._records.known(id)
            if record is not None and record["status"] == "running":
                logger.info("job %s goes on where it stopped", id)
                self._records.write({**record, "status": "queued"})

    def _next(self) -> dict[str, Any] | None:
        """The oldest job that waits. Those that nobody waits for any more are ended."""
        waiting = []
        for id in self._records.ids():
            if id in self._done or time.monotonic() < self._later.get(id, 0.0):
                continue
            if (record := self._records.known(id)) is None:
                continue
            if record["status"] in ENDED:
                self._done.add(id)
            elif self._records.cancelled(id):
                self._end(record, {"type": "ended", "status": "cancelled"})
            else:
                waiting.append(record)
        return min(waiting, key=lambda record: (record["created"], record["id"]), default=None)

    # ------------------------------------------------------------ one job
    async def _do(self, record: dict[str, Any]) -> None:
        known = self._last(record)
        if known is not None and known["type"] == "ended":  # the server was killed between its end and this note of it
            await self._ended(record, known)
            return
        hosted = self._hosting.models.get(record["model"])
        if hosted is None or not hosted.trains:
            self._end(record, _failure(f"the model {record['model']!r} isn't served here any more"))
            return
        record.update(status="running", started_at=record.get("started_at") or int(time.time()))
        self._records.write(record)
        try:
            child = _Child(self._order(record, hosted))
        except (pickle.PicklingError, TypeError, AttributeError, OSError) as error:
            logger.error("job %s can't be started", record["id"], exc_info=error)
            self._end(record, _failure("the job's process can't be started; the server's log has more"))
            return
        logger.info("job %s trains model %r, version %s", record["id"], record["model"], record["version"])
        try:
            await self._watch(record, child)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(child.stop(_LEAVING)))
            with contextlib.suppress(Exception):  # it is said by the next who recovers; this ends all the same
                if (self._last(record) or {}).get("type") != "ended":
                    self._records.write({**record, "status": "queued"})
            raise
        finally:
            child.close()
        await self._concluded(record, child)

    def _order(self, record: dict[str, Any], hosted: Hosted) -> Order:
        address, options = hosted.to_train(record["version"])
        return Order(
            self._records.path(record["id"]), address, options, record["fit"], record["started_at"], self.prepare
        )

    async def _watch(self, record: dict[str, Any], child: _Child) -> None:
        tail = self._records.tail(record["id"])
        while child.lives:
            if any(event["type"] == "ended" for _, event in tail.more()):  # all is saved; it only has to leave
                return
            if self._records.cancelled(record["id"]):
                await child.stop(_STOPPING)
                return
            await asyncio.sleep(_LOOK)

    async def _concluded(self, record: dict[str, Any], child: _Child) -> None:
        last = self._last(record)
        if last is not None and last["type"] == "ended":
            await self._ended(record, last)
        elif self._records.cancelled(record["id"]):
            self._end(record, {"type": "ended", "status": "cancelled"})
        else:
            self._end(record, _died(child.status or 0))

    def _last(self, record: dict[str, Any]) -> dict[str, Any] | None:
        events = self._records.tail(record["id"]).more()
        return events[-1][1] if events else None

    def _end(self, record: dict[str, Any], event: dict[str, Any]) -> None:
        teller = Teller(self._records.path(record["id"]) / EVENTS)
        try:
            teller.tell(event)
        finally:
            teller.close()
        self._note(record, event)

    async def _ended(self, record: dict[str, Any], event: dict[str, Any]) -> None:
        hosted = self._hosting.models.get(record["model"])
        if event["status"] == "succeeded" and hosted is not None:
            with contextlib.suppress(AiaasError):  # it is logged; the version is there
                await hosted.look()
        self._note(record, event)

    def _note(self, record: dict[str, Any], event: dict[str, Any]) -> None:
        facts: dict[str, Any] = {"status": event["status"]}
        if event.get("version"):
            facts["fine_tuned_model"] = f"{record['model']}@{event['version']}"
        if (error := event.get("error")) is not None:
            facts["error"] = {"code": error["type"], "message": error["message"], "param": None}
        self._records.end(record, **facts)
        logger.info("job %s %s", record["id"], event["status"])


def _check_begun() -> None:
    """Else a job's process would serve as well, and wait for its own job."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # it imports the main program just now
        raise ConfigError(
            "a job's process imports the program that serves, which must not serve again then", hint=_GUARD
        )


def _died(status: int) -> dict[str, Any]:
    if status < 0:
        hint = "It may have taken too much memory; give a smaller batch_size, or fewer rows"
        return _failure(f"the job's process died (signal {-status})", hint)
    return _failure(f"the job's process died (status {status})", f"The server's stderr says why. {_GUARD}")


def _failure(message: str, hint: str | None = None) -> dict[str, Any]:
    error = {"type": "TrainingError", "message": message, "hint": hint}
    return {"type": "ended", "status": "failed", "error": error}


class _Child:
    """The process of a job."""

    def __init__(self, order: Order) -> None:
        self._channel: Connection
        self._channel, theirs = _SPAWN.Pipe()
        self.status: int | None = None
        # daemonic: where this process leaves in order, it takes it along
        self._process: SpawnProcess = _SPAWN.Process(target=work, args=(order, theirs), name="aiaas-job", daemon=True)
        try:
            self._process.start()
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()

    @property
    def lives(self) -> bool:
        return self._process.is_alive()

    async def stop(self, seconds: float) -> None:
        """Have it end within so many seconds; kill it then."""
        with contextlib.suppress(OSError):  # it has ended
            self._channel.send(STOP)
        end = time.monotonic() + seconds
        while self.lives and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if self.lives:
            logger.warning("a job didn't end in %g s, and is killed", seconds)
            self._process.kill()

    def close(self) -> None:
        if self.lives:
            self._process.kill()
        self._process.join()
        self.status = self._process.exitcode
        self._process.close()
        self._channel.close()
