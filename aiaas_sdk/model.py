"""The one interface: two thin faces that perform the verbs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from aiaas_sdk.exits import end_at_exit
from aiaas_sdk.explaining import Explaining
from aiaas_sdk.fitting import Fitting
from aiaas_sdk.flow import AsyncStream as AsyncRunning
from aiaas_sdk.flow import Stream as Running
from aiaas_sdk.flow import adrive, drive
from aiaas_sdk.mapping import AwaitedChunks, Chunk, Course, OnError, Progress, chunks, length
from aiaas_sdk.patience import NOT_YET, Patience
from aiaas_sdk.records.arrays import Arrays
from aiaas_sdk.records.call import Call, Deadline
from aiaas_sdk.records.explanation import Explanation
from aiaas_sdk.records.language import Delta, Embeddings, Generation, Prompt, Sampling, Tool
from aiaas_sdk.records.model import ModelInfo, Stats
from aiaas_sdk.records.options import UNSET, Options, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.training import Training
from aiaas_sdk.runs import AsyncTrainingRun, TrainingRun
from aiaas_sdk.streams import AsyncTextStream, TextStream

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from aiaas_sdk.tensors import Tensor


__all__ = ["AsyncModel", "Model"]

In = TypeVar("In")
Out = TypeVar("Out")
Record = TypeVar("Record", bound="BaseModel")


class Model(Fitting, Explaining, Generic[In, Out]):
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
            concurrency: calls in flight; None for the option of this name, or 1 here. For an endpoint it is then found:
                from 4 on, between 1 and 64, more while that helps and half where the peer pushes back.
            on_error: "raise" the first error (`.row` is its index; earlier rows have been given), "return" it in
                the row's place, or "skip" the row. When a batch fails for what one row may have caused, its rows
                are asked one by one, and only the bad one fails.
            progress: True writes rows done, rate and time left to stderr, if that is a terminal.
            checkpoint: a file that the answers are kept in. A run with the same rows, model and file gives all answers
                again and asks only for those that aren't there, however the first one ended. Errors aren't kept.

        Raises:
            UnsupportedOperationError: the first axis of this model's inputs isn't rows.
            ConfigError: the checkpoint is in use, of another model or of other rows, or can't be written.
        """
        info = self.info()
        course = self._course(info, batch_size, concurrency, on_error, checkpoint)
        course.progress = Progress(length(rows)) if progress else None
        return end_at_exit(self._mapped(course, chunks(rows, info, course.limit, self._encoder())), Generator.close)

    def _mapped(self, course: Course, batches: Iterator[Chunk]) -> Generator[Any]:
        with closing(course):
            course.open()
            with closing(course.answered(batches, self._ask)) as found:
                for answers in found:
                    yield from course.given(answers)
            course.finish()

    def _ask(self, inputs: Mapping[str, Tensor]) -> Prediction:
        self._check_open()
        deadline = self._deadline(UNSET)
        flow = self._predict(self._call("predict", deadline), inputs, None)
        return drive(flow, self._engine.sender, deadline)

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        rounds: int = 0,
        output: Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        rounds: int = 0,
        output: type[Record],
        **sampling: Unpack[Sampling],
    ) -> Record: ...
    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        rounds: int = 0,
        output: Any = None,
        **sampling: Unpack[Sampling],
    ) -> Any:
        """Generate text.

        Args:
            prompt: text, or messages (`Message`, or mappings as OpenAI has them).
            tools: typed functions that the model may ask for; the calls that it asks for are in `.tool_calls`. A tool
                may also be a mapping as OpenAI's API has it, which can be asked for and not run.
            rounds: how often tools that it asks for are run and it is asked again; 0 leaves running them to you.
            output: a pydantic model: the answer is one of it. Or a JSON schema as a mapping: the answer's text is one
                JSON document of the schema's type; whether it fits further is yours to check. An answer that isn't
                that is asked for again, twice.
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
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        output: type[BaseModel] | Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> TextStream:
        """Generate text piece by piece: iterate the stream for deltas, best in a `with` block.

        `timeout` bounds the whole, `attempt_timeout` the time to the first content, and `gap_timeout` (60 s) the time
        between two contents. Arguments as for `generate`; with `output`, the text is checked at its end.

        Raises (when it is iterated):
            StreamInterruptedError: it ended early; `.partial` is what had come.
            OutputError: it has ended, and doesn't fit `output`.
        """
        self._check_open()
        deadline = self._deadline(sampling.pop("timeout", UNSET))

        def begin() -> Running[Delta]:
            self._opened_by(deadline)
            return Running(self._streamed(prompt, tools, output, sampling, deadline), self._engine.sender, deadline)

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

    def _opened_by(self, deadline: Deadline | None) -> None:
        self._check_open()
        if self._engine.info is None:
            self._engine.open(self._opening, self._call("open", deadline))

    def explain(
        self,
        inputs: Any,
        *,
        target: int | str | Sequence[int] | Sequence[str] | None = None,
        method: str = "auto",
        timeout: float | Unset | None = UNSET,
    ) -> Explanation:
        """What each element of the inputs did for the answer.

        Args:
            inputs: as `predict` takes them; or texts, where the model has a tokenizer.
            target: which of the outputs is explained: an index, a label, a next token (" Paris"), or one of these for
                each row; None for what the model predicts. A model that gives a row one number has only that.
            method: "integrated_gradients", "saliency", "smoothgrad", "grad_cam" (of a convolution), "occlusion",
                "shap" (of a table), "attention_rollout" (of a Transformer), or "auto" for one that fits. A model that
                gives no gradients is asked for its answers to other inputs: "occlusion" and "shap" need no more.

        Raises:
            UnsupportedOperationError: the model can't be explained.
            InputError: the method doesn't fit, or there is no such target; it says which there are.
        """
        deadline = self._deadline(timeout)
        self._opened_by(deadline)
        return drive(self._explained(inputs, target, method, deadline), self._engine.sender, deadline)

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
        validation: Any = None,
        seed: int | None = None,
        workers: int = 1,
        resume: bool = False,
        progress: bool | None = None,
        **training: Unpack[Training],
    ) -> TrainingRun:
        """Train a copy of the model, here or as a job on its endpoint; this model never changes.

        It returns as soon as the run has begun. `run.result()` waits for the new version, and loads it.

        Args:
            x: arrays as `predict` takes them; or, without `y`, what gives pairs (x, y): a torch Dataset or DataLoader,
                an iterable of batches or of single rows (read once an epoch), or a function that makes one. Or a path:
                .npz, .npy, .csv, or a folder with a folder of images for each class.
            y: for each row its class (a number from 0 on, or one of the model's labels), or what the output should be;
                {output name: targets} where there are several outputs. For a .npy its other file, for a .csv the name
                of the column.
            validation: a share of the rows, drawn by the seed, that the result is checked with after each epoch; or
                a pair (x, y), or anything that `x` may be.
            progress: True writes epoch, loss, metrics, rate and time left to stderr, if that is a terminal.
            epochs, batch_size, ..., training: see `aiaas_sdk.records.training.Fit`.

        Raises:
            UnsupportedOperationError: the model can't be trained; it says what would help.
            ConfigError: a setting can't be. InputError: the rows don't fit the model. Both before anything runs.
        """
        settings = {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "loss": loss,
            "metrics": metrics,
            "seed": seed,
            "workers": workers,
            "resume": resume,
            **training,
        }
        deadline = self._deadline(UNSET)
        self._opened_by(deadline)
        begun = self._begun(x, y, validation, settings, progress, deadline)
        return TrainingRun(drive(begun, self._engine.sender, deadline), self._engine, self._newer)

    def info(self) -> ModelInfo:
        """Name, version, signature, labels, verbs; opens the model."""
        self._check_open()
        return self._engine.open(self._opening, self._call("open", self._deadline(UNSET)))

    def ready(self) -> bool:
        """Whether the model can serve now; opens it. An unreachable peer raises."""
        deadline = self._deadline(UNSET)
        return self._ready(self._call("open", deadline), self._call("ready", deadline))

    def _ready(self, opening: Call, call: Call) -> bool:
        self._check_open()
        self._engine.open(self._opening, opening)
        return drive(self._engine.backend.readiness(call), self._engine.sender, call.deadline)

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
                deadline = patience.nearer(self._deadline(UNSET))
                if self._ready(self._look("open", deadline), self._look("ready", deadline)):
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


class AsyncModel(Fitting, Explaining, Generic[In, Out]):
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
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        batch_size: int | None = None,
        concurrency: int | None = None,
        on_error: OnError = "raise",
        progress: bool | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> AsyncIterator[Any]:
        """As `Model.map`: `async for answer in model.map(rows)`. The rows may come from an async iterable too."""
        info = await self.info()
        course = self._course(info, batch_size, concurrency, on_error, checkpoint)
        course.progress = Progress(length(rows)) if progress else None
        source = AwaitedChunks if isinstance(rows, AsyncIterable) else chunks
        batches: Any = source(rows, info, course.limit, self._encoder())  # type: ignore[arg-type]
        with closing(course):
            await course.on_disk(course.open)
            tasks = course.tasks(batches, self._ask)
            try:
                while (answers := await tasks.next()) is not None:
                    for answer in course.given(answers):
                        yield answer
            finally:
                await tasks.close()
            await course.on_disk(course.finish)

    async def _ask(self, inputs: Mapping[str, Tensor]) -> Prediction:
        self._check_open()
        deadline = self._deadline(UNSET)
        flow = self._predict(self._call("predict", deadline), inputs, None)
        return await adrive(flow, self._engine.async_sender, deadline)

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        rounds: int = 0,
        output: Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation: ...
    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        rounds: int = 0,
        output: type[Record],
        **sampling: Unpack[Sampling],
    ) -> Record: ...
    async def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
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
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Tool] = (),
        output: type[BaseModel] | Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncTextStream:
        """As `Model.stream`; it isn't awaited itself: `async with model.stream(...) as stream`."""
        self._check_open()
        deadline = self._deadline(sampling.pop("timeout", UNSET))

        async def begin() -> AsyncRunning[Delta]:
            await self._opened_by(deadline)
            flow = self._streamed(prompt, tools, output, sampling, deadline)
            return AsyncRunning(flow, self._engine.async_sender, deadline)

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

    async def _opened_by(self, deadline: Deadline | None) -> None:
        self._check_open()
        if self._engine.info is None:
            await self._engine.aopen(self._opening, self._call("open", deadline))

    async def explain(
        self,
        inputs: Any,
        *,
        target: int | str | Sequence[int] | Sequence[str] | None = None,
        method: str = "auto",
        timeout: float | Unset | None = UNSET,
    ) -> Explanation:
        """As `Model.explain`."""
        deadline = self._deadline(timeout)
        await self._opened_by(deadline)
        return await adrive(self._explained(inputs, target, method, deadline), self._engine.async_sender, deadline)

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
        validation: Any = None,
        seed: int | None = None,
        workers: int = 1,
        resume: bool = False,
        progress: bool | None = None,
        **training: Unpack[Training],
    ) -> AsyncTrainingRun:
        """As `Model.fit`: `run = await model.fit(...)`."""
        settings = {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "loss": loss,
            "metrics": metrics,
            "seed": seed,
            "workers": workers,
            "resume": resume,
            **training,
        }
        deadline = self._deadline(UNSET)
        await self._opened_by(deadline)
        begun = self._begun(x, y, validation, settings, progress, deadline)
        return AsyncTrainingRun(await adrive(begun, self._engine.async_sender, deadline), self._engine, self._newer)

    async def info(self) -> ModelInfo:
        """As `Model.info`."""
        self._check_open()
        return await self._engine.aopen(self._opening, self._call("open", self._deadline(UNSET)))

    async def ready(self) -> bool:
        """As `Model.ready`."""
        deadline = self._deadline(UNSET)
        return await self._ready(self._call("open", deadline), self._call("ready", deadline))

    async def _ready(self, opening: Call, call: Call) -> bool:
        self._check_open()
        await self._engine.aopen(self._opening, opening)
        return await adrive(self._engine.backend.readiness(call), self._engine.async_sender, call.deadline)

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `Model.wait_ready`."""
        patience = Patience(self._engine.backend.address, timeout)
        while True:
            failure = None
            try:
                deadline = patience.nearer(self._deadline(UNSET))
                if await self._ready(self._look("open", deadline), self._look("ready", deadline)):
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
