"""Dynamic batching: requests that wait for one model share its forward passes.

While a pass runs, in the model's own thread, requests gather; what has gathered is the next pass. So the batches grow
with the load by themselves, and an idle model runs a request at once. `max_batch_delay` lets an almost full house wait
a little longer; it is used only while requests do come together, never for a client on its own. Where a row takes
longer in larger passes, these become smaller (`sizing`).

    asked -> waiting -> a pass -> answered
               |          '-- failed: each of its members once more, alone
               '-- its client left, or its deadline passed: never run

There is no task and no thread here that could die: each step is a callback of the event loop, and what fails in one
pass is told to that pass's members.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor

from aiaas_sdk.errors import DeadlineExceededError, InputError, ModelError
from aiaas_sdk.near import Near
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server.batch import Member, UnequalRowsError, answers
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.sizing import Sizing
from aiaas_sdk.server.turns import Turns
from aiaas_sdk.tensors import Tensor

__all__ = ["Batcher"]

logger = logging.getLogger("aiaas_sdk.server")

_LOOK = 0.25
"""Seconds between two looks whether the thread of a pass still lives."""
_QUIET = 3
"""Turns of the loop that bring nobody, after which nobody is on his way: a head that is read in one turn, and its body
in the next, wait only in the one after."""
_WEIGHT = 0.2
"""Of the newest pass in the running mean of their times."""


class Batcher:
    """The queue before one opened model that is here, in one event loop.

    Args:
        here: the model.
        max_rows: rows that may share a pass. A request that is larger by itself is run alone, uncut. The model's own
            `max_batch_size` (in `info.metadata`) may be lower, and then no request may have more than that.
        max_delay: seconds for which a pass that isn't full may wait for more.
        passed: told of each pass that gave answers: its rows, and the seconds that it took.
    """

    def __init__(
        self,
        here: Near,
        *,
        max_rows: int,
        max_delay: float,
        passed: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._here, self._max_delay, self._passed = here, max_delay, passed
        most = here.info.metadata.get("max_batch_size")
        self._most = most if type(most) is int and most > 0 and here.info.rows_free else None
        self._sizing = Sizing(max_rows if self._most is None else min(max_rows, self._most))
        self._shared = here.info.rows_free and self._sizing.limit > 1
        self._waiting: dict[Member, None] = {}  # in order; who leaves is taken out at once
        self._turns = Turns()
        self._running: dict[_Pass, None] = {}
        self._starting: asyncio.Handle | None = None
        self._delayed: asyncio.Handle | None = None
        self._busy = False  # requests came together lately
        self._seen = self._quiet = 0  # that waited at the last look; looks since more did
        self._mean: float | None = None  # seconds of a pass

    @property
    def waiting(self) -> int:
        """Requests that wait for a pass."""
        return len(self._waiting)

    async def predict(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str] | None, seconds: float | None
    ) -> Prediction:
        """The answer to one request, whose caller waits so many seconds; None for as long as it takes.

        Raises:
            InputError: it has more rows than the model takes.
            RefusedError: 503, by what the last passes took it can't be answered in time.
            DeadlineExceededError: the time ran out. What was still waiting then is never run.
            ...: what the model raises when it runs this request alone.
        """
        if self._most is not None:
            self._check_rows(inputs, self._most)
        loop = asyncio.get_running_loop()
        member = Member(inputs, outputs, loop.create_future(), self._shared)
        who = caller().name
        member.turn = self._turns.due(who)
        timer = None
        if seconds is not None:
            self._check_hope(member, seconds)
            timer = loop.call_later(seconds, _end, member)
        self._waiting[member] = None
        self._turns.given(who, member.turn, member.rows)
        if self._running:
            self._busy = True
        if self._starting is None:
            self._start_soon(loop)
        try:
            return await member.answer
        finally:
            if member in self._waiting:
                del self._waiting[member]
                self._turns.left(who, member.rows)
            if timer is not None:
                timer.cancel()

    def _check_rows(self, inputs: Mapping[str, Tensor], most: int) -> None:
        rows = max((tensor.shape[0] for tensor in inputs.values() if tensor.shape), default=0)
        if rows > most:
            told = f"the request has {rows} rows, and model {self._here.info.name!r} takes {most} at once"
            raise InputError(told, hint="Send fewer rows")

    def _check_hope(self, member: Member, seconds: float) -> None:
        """Refuse what would wait in vain; an idle model tries whatever it is asked."""
        if not self._running or self._mean is None:
            return
        before = [other for other in self._waiting if other.turn <= member.turn]
        rows = sum(other.rows for other in before) + member.rows
        ahead = math.ceil(rows / self._sizing.limit / self._here.slots) if self._shared else len(before) + 1
        needed = min(one.left(self._mean) for one in self._running) + ahead * self._mean
        if needed > seconds:
            raise RefusedError(
                503,
                f"model {self._here.info.name!r} is overloaded: it needs about {needed:.2g} s to come to this request,"
                f" which is given up after {seconds:.2g} s; try again later",
                retry_after=needed,
            )

    # ------------------------------------------------------------ beginning a pass
    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Not at once: who is read in the same turn of the loop belongs to the same pass."""
        if self._starting is None and self._waiting and len(self._running) < self._here.slots:
            self._starting = loop.call_soon(self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = None
        if self._coming():
            self._starting = loop.call_soon(self._start, loop)
            return
        if self._delayed is not None:
            self._delayed.cancel()
        if not (members := self._next()) or len(self._running) >= self._here.slots:
            return
        if (patience := self._patience(members)) > 0:
            self._delayed = loop.call_later(patience, self._start, loop)
            return
        self._busy = len(members) > 1
        for member in members:
            self._turns.taken(member.turn)
            del self._waiting[member]
            member.running = True
        self._running[_Pass(self, members, loop)] = None
        self._start_soon(loop)

    def _coming(self) -> bool:
        """Whether others came with the last turns of the loop, where they do come together: the next may bring more.

        A turn takes microseconds, and a pass for the first of many costs all of them the time of a pass.
        """
        before, self._seen = self._seen, len(self._waiting)
        if self._busy and self._shared and self._seen < self._sizing.limit:
            self._quiet = 0 if before < self._seen else self._quiet + 1
            if self._quiet < _QUIET:
                return True
        self._seen = self._quiet = 0
        return False

    def _next(self) -> list[Member]:
        """Whose turn it is, the longest waiting among equals, and as many like it as go in with it."""
        found: list[Member] = []
        rows = 0
        for member in self._turns.ordered(self._waiting):
            if member.answer.done():  # the deadline's timer was first, and its task comes soon
                continue
            if not found:
                found.append(member)
                if member.key is None:
                    break
            elif member.key == found[0].key and rows + member.rows <= self._sizing.limit:
                found.append(member)
            else:
                continue
            rows += member.rows
            if rows >= self._sizing.limit:
                break
        return found

    def _patience(self, members: Sequence[Member]) -> float:
        """Seconds for which this pass may still wait for more."""
        if not (self._max_delay and self._busy) or members[0].key is None:
            return 0.0
        if sum(member.rows for member in members) >= self._sizing.limit:
            return 0.0
        return members[0].asked + self._max_delay - time.perf_counter()

    # ------------------------------------------------------------ ending one
    def _ended(self, one: _Pass, outcome: list[Prediction] | BaseException, loop: asyncio.AbstractEventLoop) -> None:
        if one not in self._running:  # it was given up before: its thread had died
            return
        del self._running[one]
        self._mean = one.seconds if self._mean is None else self._mean + _WEIGHT * (one.seconds - self._mean)
        if isinstance(outcome, list):
            rows = sum(member.rows for member in one.members)
            self._passed(rows, one.seconds)
            if self._shared and rows:
                self._sizing.passed(rows, one.computed)
            for member, answer in zip(one.members, outcome, strict=True):
                if not member.answer.done():
                    member.answer.set_result(answer)
        else:
            self._failed(one.members, outcome)
        self._start_soon(loop)

    def _failed(self, members: Sequence[Member], error: BaseException) -> None:
        if len(members) == 1:
            _tell(members[0], error)
            return
        if isinstance(error, UnequalRowsError):
            logger.warning("model %r shares no pass any more: %s", self._here.info.name, error.message)
            self._shared = False
        again = [member for member in members if not member.answer.done()]
        for member in again:
            member.key, member.running = None, False
        self._waiting = dict.fromkeys(again) | self._waiting


class _Pass:
    """A forward pass under way, and the look whether its thread still lives."""

    __slots__ = ("_batcher", "_begun", "_look", "_loop", "computed", "members", "seconds")

    def __init__(self, batcher: Batcher, members: Sequence[Member], loop: asyncio.AbstractEventLoop) -> None:
        self._batcher, self.members, self._loop = batcher, members, loop
        self._begun, self.seconds, self.computed = time.perf_counter(), 0.0, 0.0
        self._look = loop.call_later(_LOOK, self._watch)
        try:
            batcher._here.submit(self._run)
        except BaseException as error:  # the model was closed
            loop.call_soon(self._end, error)

    def left(self, mean: float) -> float:
        """Seconds until it ends, if it is like the others; what takes longer already may take as long again."""
        taken = time.perf_counter() - self._begun
        return mean - taken if taken < mean else taken

    def _run(self) -> None:
        outcome: list[Prediction] | BaseException
        # the thread's own time: what else the machine does, the event loop among it, says nothing of the size
        begun = time.thread_time()
        try:
            outcome = self.members[0].context.run(answers, self._batcher._here, self.members)
        except BaseException as error:
            outcome = error
        self.computed = time.thread_time() - begun
        try:
            self._loop.call_soon_threadsafe(self._end, outcome)
        except RuntimeError:  # the server has ended meanwhile
            logger.warning("a pass ended after its server; its answers were dropped")

    def _end(self, outcome: list[Prediction] | BaseException) -> None:
        self._look.cancel()
        self.seconds = time.perf_counter() - self._begun
        self._batcher._ended(self, outcome, self._loop)

    def _watch(self) -> None:
        if self._batcher._here.lost:
            name = self._batcher._here.info.name
            logger.error("the thread of model %r died in the middle of a pass", name)
            error = ModelError(f"the thread of model {name!r} died while it computed")
            error.__cause__ = BrokenExecutor("a thread of the model has died")  # who hosts it opens it anew
            self._end(error)
        else:
            self._look = self._loop.call_later(_LOOK, self._watch)


def _end(member: Member) -> None:
    """The deadline of a request."""
    if member.running:
        told = "the model was still computing at the deadline"
        _tell(member, DeadlineExceededError(told, hint="Its slot stays taken until it ends; send fewer rows"))
    else:
        told = "the request's time ran out while it waited for the model; it wasn't run"
        _tell(member, DeadlineExceededError(told, retryable=False))


def _tell(member: Member, error: BaseException) -> None:
    if member.answer.done():
        return
    if not isinstance(error, Exception):  # what ends a thread mustn't end the event loop
        error = ModelError(f"the model raised {type(error).__name__}")
    member.answer.set_exception(error)
