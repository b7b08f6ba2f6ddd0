"""The one interface: each verb once, as a flow, and two thin faces that perform it."""

from __future__ import annotations

import difflib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, Unpack

from aiaas_sdk.engine import Engine
from aiaas_sdk.errors import (
    AiaasError,
    ClosedError,
    ConfigError,
    InputError,
    ModelNotReadyError,
    ProtocolError,
)
from aiaas_sdk.flow import Flow, adrive, drive
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.language import Embeddings, Generation, Prompt, Sampling
from aiaas_sdk.records.model import ModelInfo, Stats, TensorSpec, Timing, Usage
from aiaas_sdk.records.options import ENGINE_OPTIONS, UNSET, Options, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.records.training import Explanation
from aiaas_sdk.tensors import Kind, Tensor, datatype_of, matches, take

__all__ = ["AsyncModel", "Model"]

In = TypeVar("In")
Out = TypeVar("Out")
POLL = 0.2
"""Seconds between two looks of `wait_ready`."""


class _Verbs:
    """What both faces share: options, the call record, and each verb as a flow."""

    def __init__(
        self,
        engine: Engine,
        options: Mapping[str, Any],
        around: Callable[[Mapping[str, Any]], Any],
        reload: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._engine, self._options = engine.lease(), dict(options)
        self._around, self._policies, self._reload = around, around(options), reload
        self._lease = weakref.finalize(self, engine.release)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.backend.address} timeout={self._options.get('timeout')}>"

    def __reduce__(self) -> Any:
        raise TypeError("a model can't be pickled; send its address and load it there")

    def _call(self, verb: str) -> Call:
        call = Call(verb, attempt_timeout=self._options.get("attempt_timeout"))
        if self._policies is not None:
            call.around = self._policies
        return call

    def _deadline(self, timeout: float | Unset | None) -> float | None:
        seconds = self._options.get("timeout") if isinstance(timeout, Unset) else timeout
        if seconds is None:
            return None
        if not seconds > 0:
            raise ConfigError(f"timeout is {seconds} s", hint="Give seconds above 0, or None for no limit")
        return float(time.monotonic() + seconds)

    def _check_open(self) -> None:
        if not self._lease.alive:
            raise ClosedError(f"the model {self._engine.backend.address} was closed", hint="Load it again")
        self._engine.check_open()

    def _unsupported(self, verb: str) -> Exception:
        return self._engine.backend.unsupported(verb)

    def _view(self, options: Mapping[str, Any]) -> Any:
        self._check_open()
        merged = {**self._options, **options}
        if ENGINE_OPTIONS & options.keys():
            return self._reload(merged)
        return type(self)(self._engine, merged, self._around, self._reload)

    # ------------------------------------------------------------ predict
    def _predict(
        self, call: Call, inputs: Any, outputs: Sequence[str] | None, seconds: float | None
    ) -> Flow[Prediction]:
        begun = time.perf_counter()
        failed, rows = True, 0
        try:
            info = self._engine.info
            assert info is not None  # the face has opened it
            named = _named(inputs, info)
            kind = Kind.of(named.values())
            tensors = {spec.name: take(named[spec.name], spec, where=info.name) for spec in _specs(named, info)}
            rows = next((t.shape[0] for t in tensors.values() if t.shape), 0)
            wanted = _wanted(outputs, info)
            answer: Mapping[str, Tensor] = yield from self._engine.backend.start(call, tensors, wanted)
            _check_answer(answer, info, wanted)
            failed = False
            return Prediction(
                {name: kind.give(tensor) for name, tensor in answer.items()},
                tensors=answer,
                labels=info.labels,
                model=info.name,
                version=call.version or info.version,
                backend=call.backend or self._engine.backend.scheme,
                attempts=call.attempts,
                timing=Timing(
                    total=time.perf_counter() - begun,
                    queue=call.queue,
                    compute=call.compute,
                    network=call.network,
                ),
                usage=Usage(rows=rows),
                request_id=call.request_id,
            )
        except AiaasError as error:
            raise self._located(error, call, begun, seconds) from error.__cause__
        finally:
            self._engine.count(
                failed=failed,
                attempts=call.attempts,
                rows=0 if failed else rows,
                seconds=time.perf_counter() - begun,
            )

    def _located(self, error: AiaasError, call: Call, begun: float, seconds: float | None) -> AiaasError:
        return error.locate(
            address=str(self._engine.backend.address),
            attempts=call.attempts,
            allowed=call.allowed,
            elapsed=time.perf_counter() - begun,
            timeout=seconds,
        )


def _named(inputs: Any, info: ModelInfo) -> Mapping[str, Any]:
    names = [spec.name for spec in info.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) > 1:
            raise InputError(f"{info.name} has {len(names)} inputs: {', '.join(names)}", hint="Give {NAME: array, ...}")
        return {names[0] if names else "input": inputs}
    unknown = [name for name in inputs if names and name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        near = difflib.get_close_matches(str(unknown[0]), names, 1) if unknown else []
        what = f"unknown input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
        raise InputError(
            f"{info.name}: {what}; its inputs are {', '.join(names)}",
            hint=f"Did you mean {near[0]!r}" if near else None,
        )
    return inputs


def _specs(named: Mapping[str, Any], info: ModelInfo) -> Sequence[TensorSpec]:
    """The signature; for a model without one, what came is what is expected."""
    if info.inputs:
        return info.inputs
    return [TensorSpec(name, *_described(value)) for name, value in named.items()]


def _described(value: Any) -> tuple[str, tuple[int, ...]]:
    import numpy as np

    shape = value.shape if hasattr(value, "shape") else np.shape(value)
    return datatype_of(value), tuple(int(size) for size in shape)


def _wanted(outputs: Sequence[str] | None, info: ModelInfo) -> tuple[str, ...]:
    known = [spec.name for spec in info.outputs]
    if isinstance(outputs, str):
        raise InputError(f"outputs is the text {outputs!r}", hint=f"Give a list: outputs=[{outputs!r}]")
    if outputs is None:
        return ()
    for name in outputs:
        if known and name not in known:
            raise InputError(f"{info.name} has no output {name!r}; it has {', '.join(known)}")
    return tuple(outputs)


def _check_answer(answer: Mapping[str, Tensor], info: ModelInfo, wanted: Sequence[str]) -> None:
    """The other side of the call: what came is what was announced and asked for."""
    for name in wanted:
        if name not in answer:
            raise ProtocolError(f"{info.name} left out the output {name!r}")
    for spec in info.outputs:
        tensor = answer.get(spec.name)
        if tensor is not None and not matches(spec, tensor.shape):
            raise ProtocolError(
                f"{info.name} gave {spec.name!r} the shape {list(tensor.shape)}; announced is {list(spec.shape)}"
            )


class Model(_Verbs, Generic[In, Out]):
    """A model, here or behind an endpoint. `load` makes one.

    Opening (weights, or connection and metadata) happens in `with`, `wait_ready` or the first call. Safe
    across threads. After `close` every verb raises ClosedError.
    """

    def predict(
        self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = UNSET
    ) -> Prediction:
        """Run the model on a batch.

        Args:
            inputs: an array where the model has one input, else a mapping from input name to array. numpy,
                torch, lists, and anything with `__array__` or `__dlpack__`.
            outputs: the outputs to give back; None for all.
            timeout: seconds for the whole call, None for no limit; not given: the model's own.

        Raises:
            InputError: a name, shape or dtype doesn't fit; nothing was sent.
            DeadlineExceededError: the time ran out.
            ModelError: the model raised.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        self._engine.open(self._call("open"), deadline)
        seconds = None if deadline is None else deadline - time.monotonic()
        return drive(self._predict(self._call("predict"), inputs, outputs, seconds), self._engine.sender, deadline)

    def generate(self, prompt: Prompt, **sampling: Unpack[Sampling]) -> Generation:
        """Generate text. UnsupportedOperationError where the model can't."""
        raise self._unsupported("generate")

    def stream(self, prompt: Prompt, **sampling: Unpack[Sampling]) -> Any:
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

    def info(self) -> ModelInfo:
        """Name, version, signature, labels, verbs; opens the model."""
        self._check_open()
        return self._engine.open(self._call("open"), self._deadline(UNSET))

    def ready(self) -> bool:
        """Whether the model can serve now; opens it. An unreachable peer raises."""
        self.info()
        return drive(self._engine.backend.readiness(self._call("ready")), self._engine.sender, self._deadline(UNSET))

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
        self._lease()

    def __enter__(self) -> Self:
        self.info()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncModel(_Verbs, Generic[In, Out]):
    """The awaited twin of `Model`: the same names."""

    async def predict(
        self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout: float | Unset | None = UNSET
    ) -> Prediction:
        """As `Model.predict`."""
        self._check_open()
        deadline = self._deadline(timeout)
        await self._engine.aopen(self._call("open"), deadline)
        seconds = None if deadline is None else deadline - time.monotonic()
        flow = self._predict(self._call("predict"), inputs, outputs, seconds)
        return await adrive(flow, self._engine.async_sender, deadline)

    async def generate(self, prompt: Prompt, **sampling: Unpack[Sampling]) -> Generation:
        """As `Model.generate`."""
        raise self._unsupported("generate")

    def stream(self, prompt: Prompt, **sampling: Unpack[Sampling]) -> Any:
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

    async def info(self) -> ModelInfo:
        """As `Model.info`."""
        self._check_open()
        return await self._engine.aopen(self._call("open"), self._deadline(UNSET))

    async def ready(self) -> bool:
        """As `Model.ready`."""
        await self.info()
        flow = self._engine.backend.readiness(self._call("ready"))
        return await adrive(flow, self._engine.async_sender, self._deadline(UNSET))

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `Model.wait_ready`."""
        import asyncio

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
        self._lease()

    async def __aenter__(self) -> Self:
        await self.info()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
