"""One `map` on its way."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import (
    AiaasError,
    ClosedError,
    ConfigError,
    InputError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    ServerError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Run, Sleep
from aiaas_sdk.mapping.chunks import AwaitedChunks, Chunk
from aiaas_sdk.mapping.lanes import AwaitedWork, Tasks, Work, answered, in_turn
from aiaas_sdk.mapping.pacing import Pace
from aiaas_sdk.mapping.progress import Progress
from aiaas_sdk.mapping.steps import Answers, Ask, Steps, aperform, perform
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.prediction import Prediction, RowOf, rows_of
from aiaas_sdk.tensors import Tensor

if TYPE_CHECKING:
    from aiaas_sdk.mapping.checkpoint import Checkpoint

__all__ = ["Course", "OnError", "check"]

OnError: TypeAlias = Literal["raise", "return", "skip"]
OF_A_ROW = (InputError, InvalidRequestError, ModelError, ServerError, ProtocolError)
"""Failures that one row of a batch may have caused: its rows are then asked one by one."""
MOST_ASKED = 10
"""Times that a batch is asked while the pace is lowered because the peer refuses."""
PAUSE = 0.1
"""Seconds, the upper bound of the first pause before a refused batch is asked again; each next one is twice as long."""
LONGEST_PAUSE = 8.0


def check(
    info: ModelInfo, batch_size: int | None, concurrency: int | None, on_error: str, checkpoint: object = None
) -> None:
    """What `map` was asked for is possible, or an error says what isn't."""
    if on_error not in ("raise", "return", "skip"):
        raise ConfigError(f"on_error is {on_error!r}", hint='Give "raise", "return" or "skip"')
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{name} is {value!r}", hint="Give a whole number from 1 on")
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise ConfigError(f"checkpoint is {kind_of(checkpoint)}", hint="Give the path of a file")
    if (info.inputs or info.outputs) and not info.rows_free:
        raise UnsupportedOperationError(
            f"map isn't available for {info.name}: its first axes aren't rows, so that no batch of it can be split",
            hint="Call predict for each input",
        )


class Course:
    """One `map` on its way, from the batches to what the caller is given.

    Args:
        pace: how many batches may be out at once.
        limit: rows in a batch.
        on_error: what becomes of a row's error.
        decode: makes a row's answer what the caller wants, or an error; None where it is that already.
        checkpoint: opens it; None where there is none.
    """

    def __init__(
        self,
        pace: Pace,
        limit: int,
        on_error: OnError = "raise",
        decode: Callable[[int, RowOf], Any] | None = None,
        checkpoint: Callable[[], Checkpoint] | None = None,
    ) -> None:
        self.pace, self.limit = pace, limit
        self.progress: Progress | None = None
        self._on_error, self._decode = on_error, decode
        self._opening = checkpoint
        self._checkpoint: Checkpoint | None = None
        self._left = False

    # ------------------------------------------------------------ begin and end
    def open(self) -> None:
        """Before the first batch."""
        if self._opening is not None:
            self._checkpoint = self._opening()
            if self._left:  # meanwhile: an event loop doesn't wait for its threads
                self._checkpoint.close()

    def finish(self) -> None:
        """All answers were given."""
        if self._checkpoint is not None:
            self._checkpoint.sync()

    def close(self) -> None:
        """Nobody waits for answers any more. A call that can't be stopped is the last one of its batch."""
        self._left = True
        if self._checkpoint is not None:
            self._checkpoint.close()
        if self.progress is not None:
            self.progress.close()

    async def on_disk(self, work: Callable[[], None]) -> None:
        """`open` or `finish`, which take their time where there is a checkpoint."""
        if self._opening is not None:
            await asyncio.to_thread(work)

    # ------------------------------------------------------------ the answers
    def answered(
        self, chunks: Iterator[Chunk], ask: Callable[[Mapping[str, Tensor]], Prediction]
    ) -> Generator[Answers]:
        """The answers to batches, in order."""

        def perform_steps(chunk: Chunk) -> Answers:
            return perform(self._steps(chunk), ask)

        if self.pace.most == 1:
            return in_turn(self._work(chunks), perform_steps)
        return answered(self._work(chunks), perform_steps, self.pace)

    def tasks(
        self, chunks: Iterator[Chunk] | AwaitedChunks, ask: Callable[[Mapping[str, Tensor]], Awaitable[Prediction]]
    ) -> Tasks:
        """As `answered`, for an event loop; the batches may have to be awaited themselves."""

        def perform_steps(chunk: Chunk) -> Coroutine[Any, Any, Answers]:
            return aperform(self._steps(chunk), ask)

        if isinstance(chunks, AwaitedChunks):
            work: AwaitedWork = chunks if self._checkpoint is None else _AwaitedParts(chunks, self._checkpoint.split)
            return Tasks(work, perform_steps, self.pace)
        return Tasks(self._work(chunks), perform_steps, self.pace)

    def given(self, answers: Answers) -> Iterator[Any]:
        """What the caller is given of them."""
        if self.progress is not None:
            self.progress.add(len(answers.rows), answers.kept)
        if answers.sound and self._decode is None:
            return iter(answers.each)
        return self._wished(answers)

    def _wished(self, answers: Answers) -> Iterator[Any]:
        for row, outcome in zip(answers.rows, answers.each, strict=True):
            if self._decode is not None and isinstance(outcome, RowOf):
                outcome = self._decode(row, outcome)
            if not isinstance(outcome, AiaasError) or self._on_error == "return":
                yield outcome
            elif self._on_error == "raise":
                raise outcome

    # ------------------------------------------------------------ the batches
    def _work(self, chunks: Iterator[Chunk]) -> Iterator[Work]:
        """The batches, and apart from them what was answered before."""
        if self._checkpoint is None:
            return chunks
        return itertools.chain.from_iterable(map(self._checkpoint.split, chunks))

    def _steps(self, chunk: Chunk) -> Steps[Answers]:
        """Ask for a batch. One that fails for what may be one row's fault is asked row by row."""
        if chunk.failure is not None:
            return _failed(chunk.rows, chunk.failure)
        try:
            answer = yield from self._asked(chunk)
        except ClosedError:
            raise
        except AiaasError as error:
            if len(chunk.rows) == 1 or not isinstance(error, OF_A_ROW):
                return _failed(chunk.rows, error)
        else:
            yield from self._keep(chunk, answer)
            return Answers(chunk.rows, rows_of(answer, range(len(chunk.rows))))
        outcomes = []
        for place in range(len(chunk.rows)):
            outcomes.append((yield from self._row(chunk.part(place, place + 1))))
        return Answers(chunk.rows, outcomes, sound=False)

    def _row(self, chunk: Chunk) -> Steps[Any]:
        try:
            answer = yield from self._asked(chunk)
        except ClosedError:
            raise
        except AiaasError as error:
            error.row = chunk.rows[0]
            return error
        yield from self._keep(chunk, answer)
        return answer.row(0)

    def _asked(self, chunk: Chunk) -> Steps[Prediction]:
        """The answer to a batch. It is asked again where it was refused, and less is asked of the peer since."""
        for times in itertools.count(1):
            if self._left:
                raise ClosedError("nobody waits for the answers of this map any more")
            begun = self.pace.begin()
            try:
                answer: Prediction = yield Ask(chunk.inputs)
                break
            except AiaasError as error:
                pause = _pause(error, times)
                if not self.pace.failed(begun, error) or times == MOST_ASKED or pause > LONGEST_PAUSE:
                    raise
            except BaseException:
                self.pace.dropped()
                raise
            yield Sleep(pause)
        self.pace.answered(begun, len(chunk.rows), answer.attempts)
        _check_rows(answer, len(chunk.rows))
        return answer

    def _keep(self, chunk: Chunk, answer: Prediction) -> Steps[None]:
        if self._checkpoint is not None:
            self._checkpoint.keep(chunk, answer)
            if self._checkpoint.due():
                yield Run(self._checkpoint.sync)


class _AwaitedParts:
    """Batches that have to be awaited, in parts."""

    def __init__(self, chunks: AwaitedChunks, split: Callable[[Chunk], Iterator[Work]]) -> None:
        self._chunks, self._split = chunks, split
        self._parts: Iterator[Work] = iter(())

    async def next(self) -> Work | None:
        while (part := next(self._parts, None)) is None:
            if (chunk := await self._chunks.next()) is None:
                return None
            self._parts = self._split(chunk)
        return part


def _pause(error: AiaasError, times: int) -> float:
    """Seconds before a refused batch is asked again: what the peer says, or full jitter."""
    if error.retry_after is not None:
        return error.retry_after
    bound: float = min(LONGEST_PAUSE, PAUSE * 2 ** (times - 1))
    return random.random() * bound


def _check_rows(answer: Prediction, count: int) -> None:
    for name, array in answer.items():
        if tuple(array.shape[:1]) != (count,):
            raise ProtocolError(f"{answer.model} gave {name!r} with shape {list(array.shape)} for {count} rows")


def _failed(rows: range, error: AiaasError) -> Answers:
    """The failure of a whole batch, as each of its rows' own."""
    outcomes = []
    for row in rows:
        own = error if len(rows) == 1 else copy.copy(error)
        own.row, own.__cause__ = row, error.__cause__
        outcomes.append(own)
    return Answers(rows, outcomes, sound=False)
