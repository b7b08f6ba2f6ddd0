"""The one interface: two thin faces that perform the verbs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from aiaas_sdk.flow import AsyncStream as AsyncRunning
from aiaas_sdk.flow import Stream as Running
from aiaas_sdk.flow import adrive, drive
from aiaas_sdk.language import Language
from aiaas_sdk.mapping import Chunk, OnError, Outcome, Progress, chunks, length
from aiaas_sdk.patience import NOT_YET, Patience
from aiaas_sdk.records.arrays import Arrays
from aiaas_sdk.records.language import Delta, Embeddings, Generation, Prompt, Sampling
from aiaas_sdk.records.model import ModelInfo, Stats
from aiaas_sdk.records.options import UNSET, Options, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.training import Explanation, Training, TrainingRun
from aiaas_sdk.streams import AsyncTextStream, TextStream
from aiaas_sdk.verbs import wished
from aiaas_sdk.workers import Workers

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


__all__ = ["AsyncModel", "Model"]

In = TypeVar("In")
Out = TypeVar("Out")
Record = TypeVar("Record", bound="BaseModel")


class Model(Language, Generic[In, Out]):
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
            self._engine.open(self._opening, self._call("open", deadline))
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
                flying.append(pool.submit(copy_context().run, self._answer, batch))  # traces go on
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
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), rounds: int = 0, **sampling: Unpack[Sampling]
    ) -> Generation: ...
    @overload
    def generate(self, prompt: Prompt, *, output: type[Record], **sampling: Unpack[Sampling]) -> Record: ...
    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        rounds: int = 0,
        output: Any = None,
        **sampling: Unpack[Sampling],
    ) -> Any:
        """Generate text.

        Args:
            prompt: text, or messages (`Message`, or mappings as OpenAI has them).
            tools: typed functions that the model may ask for; the calls that it asks for are in `.tool_calls`.
            rounds: how often tools that it asks for are run and it is asked again; 0 leaves running them to you.
            output: a pydantic model; the answer is one of it. An answer that doesn't fit is asked for again, twice.
            sampling: see `Sampling`; what isn't given is the model's own default.

        Raises:
            InputError: an option or a message can't be; nothing was sent.
            UnsupportedOperationError: the model can't generate, or not with this option.
            OutputError: the answer doesn't fit `output`; its text is in `.text`.
        """
        deadline = self._deadline(sampling.pop("timeout", UNSET))
        self._opened_by(deadline)
        flow = self._generated(prompt, tools, rounds, output, sampling, deadline)
        return drive(flow, self._engine.sender, deadline)

    def stream(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> TextStream:
        """Generate text piece by piece: iterate the stream for deltas, best in a `with` block.

        `timeout` bounds the whole, `attempt_timeout` the time to the first content, and `gap_timeout` (60 s) the time
        between two contents. Arguments as for `generate`.

        Raises (when it is iterated):
            StreamInterruptedError: it ended early; `.partial` is what had come.
        """
        self._check_open()
        deadline = self._deadline(sampling.pop("timeout", UNSET))

        def begin() -> Running[Delta]:
            self._opened_by(deadline)
            return Running(self._streamed(prompt, tools, sampling, deadline), self._engine.sender, deadline)

        return TextStream(begin)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Embeddings:
        """One vector a text.

        Args:
            dimensions: of each vector, where the model can shorten them; None for its own.
        """
        deadline = self._deadline(timeout)
        self._opened_by(deadline)
        return drive(self._embedded(texts, dimensions, deadline), self._engine.sender, deadline)

    def _opened_by(self, deadline: float | None) -> None:
        self._check_open()
        if self._engine.info is None:
            self._engine.open(self._opening, self._call("open", deadline))

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
        return self._engine.open(self._opening, self._call("open", self._deadline(UNSET)))

    def ready(self) -> bool:
        """Whether the model can serve now; opens it. An unreachable peer raises."""
        return self._ready(self._deadline(UNSET))

    def _ready(self, deadline: float | None) -> bool:
        self._check_open()
        self._engine.open(self._opening, self._call("open", deadline))
        return drive(self._engine.backend.readiness(self._call("ready", deadline)), self._engine.sender, deadline)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Open the model and wait until it serves, also while its server isn't there yet.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            ModelNotReadyError: it wasn't ready in time; the last failure is its cause.
            ...: what no waiting mends (a certificate, a refusal) goes up at once.
        """
        patience = Patience(self._engine.backend.address, timeout)
        while True:
            failure = None
            try:
                if self._ready(patience.nearer(self._deadline(UNSET))):
                    return
            except NOT_YET as error:
                failure = error
            time.sleep(patience.pause(failure))

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


class AsyncModel(Language, Generic[In, Out]):
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
            await self._engine.aopen(self._opening, self._call("open", deadline))
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
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), rounds: int = 0, **sampling: Unpack[Sampling]
    ) -> Generation: ...
    @overload
    async def generate(self, prompt: Prompt, *, output: type[Record], **sampling: Unpack[Sampling]) -> Record: ...
    async def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        rounds: int = 0,
        output: Any = None,
        **sampling: Unpack[Sampling],
    ) -> Any:
        """As `Model.generate`."""
        deadline = self._deadline(sampling.pop("timeout", UNSET))
        await self._opened_by(deadline)
        flow = self._generated(prompt, tools, rounds, output, sampling, deadline)
        return await adrive(flow, self._engine.async_sender, deadline)

    def stream(
        self, prompt: Prompt, *, tools: Sequence[Callable[..., Any]] = (), **sampling: Unpack[Sampling]
    ) -> AsyncTextStream:
        """As `Model.stream`; it isn't awaited itself: `async with model.stream(...) as stream`."""
        self._check_open()
        deadline = self._deadline(sampling.pop("timeout", UNSET))

        async def begin() -> AsyncRunning[Delta]:
            await self._opened_by(deadline)
            return AsyncRunning(self._streamed(prompt, tools, sampling, deadline), self._engine.async_sender, deadline)

        return AsyncTextStream(begin)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        dimensions: int | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Embeddings:
        """As `Model.embed`."""
        deadline = self._deadline(timeout)
        await self._opened_by(deadline)
        return await adrive(self._embedded(texts, dimensions, deadline), self._engine.async_sender, deadline)

    async def _opened_by(self, deadline: float | None) -> None:
        self._check_open()
        if self._engine.info is None:
            await self._engine.aopen(self._opening, self._call("open", deadline))

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
        return await self._engine.aopen(self._opening, self._call("open", self._deadline(UNSET)))

    async def ready(self) -> bool:
        """As `Model.ready`."""
        return await self._ready(self._deadline(UNSET))

    async def _ready(self, deadline: float | None) -> bool:
        self._check_open()
        await self._engine.aopen(self._opening, self._call("open", deadline))
        flow = self._engine.backend.readiness(self._call("ready", deadline))
        return await adrive(flow, self._engine.async_sender, deadline)

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `Model.wait_ready`."""
        patience = Patience(self._engine.backend.address, timeout)
        while True:
            failure = None
            try:
                if await self._ready(patience.nearer(self._deadline(UNSET))):
                    return
            except NOT_YET as error:
                failure = error
            await asyncio.sleep(patience.pause(failure))

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
