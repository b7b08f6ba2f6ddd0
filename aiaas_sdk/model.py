"""The one interface: two thin faces that perform the verbs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from aiaas_sdk.errors import (
    ModelNotReadyError,
)
from aiaas_sdk.flow import adrive, drive
from aiaas_sdk.mapping import Chunk, OnError, Outcome, Progress, chunks, length
from aiaas_sdk.records.arrays import Arrays
from aiaas_sdk.records.language import AsyncStream, Embeddings, Generation, Prompt, Sampling, Stream
from aiaas_sdk.records.model import ModelInfo, Stats
from aiaas_sdk.records.options import UNSET, Options, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.training import Explanation, Training, TrainingRun
from aiaas_sdk.verbs import Verbs, wished
from aiaas_sdk.workers import Workers

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


__all__ = ["AsyncModel", "Model"]

In = TypeVar("In")
Out = TypeVar("Out")
Record = TypeVar("Record", bound="BaseModel")
POLL = 0.2
"""Seconds between two looks of `wait_ready`."""


class Model(Verbs, Generic[In, Out]):
    """A model, here or behind an endpoint. `load` makes one.

    Opening (weights, or connection and metadata) happens in `with`, `wait_ready` or the first call. Safe
    across threads. After `close` every verb raises ClosedError.
    """

    # A list of records and a list of numbers look alike to a type checker where In is Any; arrays win.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, inputs: Arrays, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = ...
    ) -> Prediction: ...
    @overload
    def predict(self, inputs: In, *, timeout: float | Unset | None = ...) -> Out: ...
    @overload
    def predict(self, inputs: Sequence[In], *, timeout: float | Unset | None = ...) -> list[Out]: ...
    def predict(
        self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = UNSET
    ) -> Any:
        """Run the model on a batch.

        Args:
            inputs: an array where the model has one input, else a mapping from input name to array. numpy,
                torch, lists, and anything with `__array__` or `__dlpack__`. Where the model was loaded with
                `input=`, a record or a list of records: the answer is a record, or a list of them.
            outputs: the outputs to give back; None for all.
            timeout: seconds for the whole call, None for no limit; not given: the model's own.

        Raises:
            InputError: a name, shape or dtype doesn't fit; nothing was sent.
            DeadlineExceededError: the time ran out.
            ModelError: the model raised.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        if self._engine.info is None:
            self._engine.open(self._call("open", deadline), deadline)
        at_once = self._engine.backend.at_once
        if deadline is None and at_once is not None and self._schema is None:
            return self._predict_at_once(at_once, self._call("predict"), inputs, outputs)
        flow = self._answered(inputs, outputs, deadline)
        return drive(flow, self._engine.sender, deadline)

    def map(
        self,
        rows: Iterable[Any],
        *,
        batch_size: int | None = None,
        concurrency: int | None = None,
        on_error: OnError = "raise",
        progress: bool | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> Iterator[Any]:
        """Run the model on many rows, and give one answer a row, in order.

        A row is an array without the batch axis, or a mapping from input name to one; `rows` any iterable of
        them, an array, or a mapping from input name to columns. The rows are read as they are needed. The arrays
        of an answer have no batch axis either. With `input=` records, rows and answers are records.

        Args:
            batch_size: rows in a call; None for the option of this name, or 32, and never more than the model takes.
            concurrency: calls in flight; None for the option of this name, or 1 here and 4 for an endpoint.
            on_error: "raise" the first error (`.row` is its index; earlier rows have been given), "return" it in
                the row's place, or "skip" the row. When a batch fails for what one row may have caused, its rows
                are asked one by one, and only the bad one fails.
            progress: True writes rows done, rate and time left to stderr, if that is a terminal.
            checkpoint: not available yet.

        Raises:
            UnsupportedOperationError: the first axis of this model's inputs isn't rows.
        """
        info = self.info()
        size, lanes = self._lanes(info, batch_size, concurrency, on_error, checkpoint)
        batches = chunks(rows, info, size, self._encoder(info))
        return self._mapped(batches, lanes, on_error, Progress(length(rows)) if progress else None)

    def _mapped(self, batches: Iterator[Chunk], lanes: int, on_error: str, progress: Progress | None) -> Iterator[Any]:
        for outcomes in self._outcomes(batches, lanes):
            if progress:
                progress.add(len(outcomes))
            yield from wished(map(self._decoded, outcomes), on_error)
        if progress:
            progress.close()

    def _outcomes(self, batches: Iterator[Chunk], lanes: int) -> Iterator[list[Outcome]]:
        if lanes == 1:
            yield from map(self._answer, batches)
            return
        pool = Workers(lanes, "aiaas-map")
        flying: deque[Future[list[Outcome]]] = deque()
        try:
            for batch in batches:
                flying.append(pool.submit(self._answer, batch))
                if len(flying) == lanes:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:  # whoever stops early doesn't wait for what is in flight
            pool.shutdown(cancel_futures=True)

    def _answer(self, batch: Chunk) -> list[Outcome]:
        self._check_open()
        deadline = self._deadline(UNSET)
        return drive(self._chunk(batch, deadline), self._engine.sender, deadline)

    @overload
    def generate(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> Generation: ...
    @overload
    def generate(self, prompt: Prompt, *, output: type[Record], **sampling: Unpack[Sampling]) -> Record: ...
    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        output: Any = None,
        **sampling: Unpack[Sampling],
    ) -> Any:
        """Generate text. UnsupportedOperationError where the model can't."""
        raise self._unsupported("generate")

    def stream(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> Stream:
        """Generate text piece by piece. UnsupportedOperationError where the model can't."""
        raise self._unsupported("stream")

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Embeddings:
        """One vector a text. UnsupportedOperationError where the model can't."""
        raise self._unsupported("embed")

    def explain(
        self,
        inputs: Any,
        *,
        target: int | str | Sequence[int] | None = None,
        method: str = "auto",
        timeout: float | Unset | None = UNSET,
    ) -> Explanation:
        """Attributions of an answer to its inputs. UnsupportedOperationError where the model can't."""
        raise self._unsupported("explain")

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
        learning_rate: float | None = None,
        loss: str | Callable[..., torch.Tensor] = "auto",
        metrics: Sequence[str] = ("accuracy",),
        validation: float | tuple[Any, Any] | None = None,
        seed: int | None = None,
        workers: int = 1,
        resume: bool = False,
        progress: bool | None = None,
        **training: Unpack[Training],
    ) -> TrainingRun:
        """Train a copy of the model, here or as a job. UnsupportedOperationError where the model can't."""
        raise self._unsupported("fit")

    def info(self) -> ModelInfo:
        """Name, version, signature, labels, verbs; opens the model."""
        self._check_open()
        deadline = self._deadline(UNSET)
        return self._engine.open(self._call("open", deadline), deadline)

    def ready(self) -> bool:
        """Whether the model can serve now; opens it. An unreachable peer raises."""
        self.info()
        deadline = self._deadline(UNSET)
        return drive(self._engine.backend.readiness(self._call("ready", deadline)), self._engine.sender, deadline)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Open the model and wait until it serves; ModelNotReadyError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.ready():
            if end is not None and time.monotonic() + POLL > end:
                raise ModelNotReadyError(f"{self._engine.backend.address} wasn't ready after {timeout} s")
            time.sleep(POLL)

    def stats(self) -> Stats:
        """Counts since the model was loaded."""
        return self._engine.stats()

    def with_options(self, **options: Unpack[Options]) -> Model[In, Out]:
        """A view with other options. It shares weights and connections; another `device`, say, loads anew."""
        view: Model[In, Out] = self._view(options)
        return view

    def close(self) -> None:
        """Let go of the model; a second time is harmless. Weights and connections go with the last view."""
        self._closed = True
        self._lease()

    def __enter__(self) -> Self:
        self.info()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncModel(Verbs, Generic[In, Out]):
    """The awaited twin of `Model`: the same names."""

    @overload
    async def predict(  # type: ignore[overload-overlap]
        self, inputs: Arrays, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = ...
    ) -> Prediction: ...
    @overload
    async def predict(self, inputs: In, *, timeout: float | Unset | None = ...) -> Out: ...
    @overload
    async def predict(self, inputs: Sequence[In], *, timeout: float | Unset | None = ...) -> list[Out]: ...
    async def predict(
        self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = UNSET
    ) -> Any:
        """As `Model.predict`."""
        self._check_open()
        deadline = self._deadline(timeout)
        if self._engine.info is None:
            await self._engine.aopen(self._call("open", deadline), deadline)
        flow = self._answered(inputs, outputs, deadline)
        return await adrive(flow, self._engine.async_sender, deadline)

    async def map(
        self,
        rows: Iterable[Any],
        *,
        batch_size: int | None = None,
        concurrency: int | None = None,
        on_error: OnError = "raise",
        progress: bool | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> AsyncIterator[Any]:
        """As `Model.map`: `async for answer in model.map(rows)`."""
        info = await self.info()
        size, lanes = self._lanes(info, batch_size, concurrency, on_error, checkpoint)
        batches = chunks(rows, info, size, self._encoder(info))
        shown = Progress(length(rows)) if progress else None
        flying: deque[asyncio.Task[list[Outcome]]] = deque()
        try:
            for batch in batches:
                flying.append(asyncio.ensure_future(self._answer(batch)))
                if len(flying) == lanes:
                    for answer in self._wished(await flying[0], on_error, shown):
                        yield answer
                    flying.popleft()
            while flying:
                for answer in self._wished(await flying[0], on_error, shown):
                    yield answer
                flying.popleft()
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
            if shown:
                shown.close()

    def _wished(self, outcomes: list[Outcome], on_error: str, shown: Progress | None) -> Iterator[Any]:
        if shown:
            shown.add(len(outcomes))
        return wished(map(self._decoded, outcomes), on_error)

    async def _answer(self, batch: Chunk) -> list[Outcome]:
        self._check_open()
        deadline = self._deadline(UNSET)
        return await adrive(self._chunk(batch, deadline), self._engine.async_sender, deadline)

    @overload
    async def generate(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> Generation: ...
    @overload
    async def generate(self, prompt: Prompt, *, output: type[Record], **sampling: Unpack[Sampling]) -> Record: ...
    async def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        output: Any = None,
        **sampling: Unpack[Sampling],
    ) -> Any:
        """As `Model.generate`."""
        raise self._unsupported("generate")

    def stream(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> AsyncStream:
        """As `Model.stream`."""
        raise self._unsupported("stream")

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Embeddings:
        """As `Model.embed`."""
        raise self._unsupported("embed")

    async def explain(
        self,
        inputs: Any,
        *,
        target: int | str | Sequence[int] | None = None,
        method: str = "auto",
        timeout: float | Unset | None = UNSET,
    ) -> Explanation:
        """As `Model.explain`."""
        raise self._unsupported("explain")

    async def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
        learning_rate: float | None = None,
        loss: str | Callable[..., torch.Tensor] = "auto",
        metrics: Sequence[str] = ("accuracy",),
        validation: float | tuple[Any, Any] | None = None,
        seed: int | None = None,
        workers: int = 1,
        resume: bool = False,
        progress: bool | None = None,
        **training: Unpack[Training],
    ) -> TrainingRun:
        """As `Model.fit`."""
        raise self._unsupported("fit")

    async def info(self) -> ModelInfo:
        """As `Model.info`."""
        self._check_open()
        deadline = self._deadline(UNSET)
        return await self._engine.aopen(self._call("open", deadline), deadline)

    async def ready(self) -> bool:
        """As `Model.ready`."""
        await self.info()
        flow = self._engine.backend.readiness(self._call("ready"))
        return await adrive(flow, self._engine.async_sender, self._deadline(UNSET))

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `Model.wait_ready`."""
        end = None if timeout is None else time.monotonic() + timeout
        while not await self.ready():
            if end is not None and time.monotonic() + POLL > end:
                raise ModelNotReadyError(f"{self._engine.backend.address} wasn't ready after {timeout} s")
            await asyncio.sleep(POLL)

    def stats(self) -> Stats:
        """As `Model.stats`."""
        return self._engine.stats()

    def with_options(self, **options: Unpack[Options]) -> AsyncModel[In, Out]:
        """As `Model.with_options`."""
        view: AsyncModel[In, Out] = self._view(options)
        return view

    async def aclose(self) -> None:
        """As `Model.close`."""
        self._closed = True
        self._lease()

    async def __aenter__(self) -> Self:
        await self.info()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
