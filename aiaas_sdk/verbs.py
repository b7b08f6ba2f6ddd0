"""Each verb once, as a flow, and what both faces share."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.engine import Engine
from aiaas_sdk.errors import (
    AiaasError,
    ClosedError,
    ConfigError,
    InputError,
    ModelNotReadyError,
    ProtocolError,
    UnavailableError,
)
from aiaas_sdk.flow import Flow, sleep
from aiaas_sdk.mapping import MOST, Course, OnError, Pace, check, given, records_in, size
from aiaas_sdk.observing import find, watched, watching
from aiaas_sdk.records.call import Call, Deadline
from aiaas_sdk.records.explanation import with_explain
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.records.options import ENGINE_OPTIONS, Unset
from aiaas_sdk.records.prediction import Prediction, RowOf
from aiaas_sdk.records.secret import hide
from aiaas_sdk.tensors import Kind, Tensor, datatype_of, holds, matches, take

if TYPE_CHECKING:
    from aiaas_sdk.mapping.checkpoint import Checkpoint
    from aiaas_sdk.schema import Bound, Schema

__all__ = ["Verbs"]

logger = logging.getLogger("aiaas_sdk.model")

LOADING, LONGEST = 0.5, 4.0
"""Seconds of the first and of the longest pause while a model loads."""


class Verbs:
    """What both faces share: options, the call record, and each verb as a flow."""

    def __init__(
        self,
        engine: Engine,
        options: Mapping[str, Any],
        around: Callable[[Mapping[str, Any]], Any],
        reload: Callable[..., Any],
        schema: Schema | None = None,
    ) -> None:
        self._engine, self._options = engine.lease(), dict(options)
        self._schema = schema
        self._bound: Bound | None = None
        self._around, self._policies, self._reload = around, around(options), reload
        self._lease = weakref.finalize(self, engine.release)
        self._closed = False
        self._timeout: float | None = options.get("timeout")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.backend.address} timeout={self._options.get('timeout')}>"

    def __reduce__(self) -> Any:
        raise TypeError("a model can't be pickled; send its address and load it there")

    def _call(self, verb: str, deadline: Deadline | None = None) -> Call:
        call = Call(verb, attempt_timeout=self._options.get("attempt_timeout"), deadline=deadline)
        if self._policies is not None:
            call.around = self._policies
        return call

    def _look(self, verb: str, deadline: Deadline | None) -> Call:
        """A call without policies, of who looks again by himself."""
        return Call(verb, attempt_timeout=self._options.get("attempt_timeout"), deadline=deadline)

    def _deadline(self, timeout: float | Unset | None) -> Deadline | None:
        seconds = self._timeout if isinstance(timeout, Unset) else timeout
        if seconds is None:
            return None
        if not seconds > 0:
            raise ConfigError(f"timeout is {seconds} s", hint="Give seconds above 0, or None for no limit")
        return Deadline.after(seconds)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the model {self._engine.backend.address} was closed", hint="Load it again")

    def _unsupported(self, verb: str) -> Exception:
        return self._engine.backend.unsupported(verb)

    def _view(self, options: Mapping[str, Any]) -> Any:
        hide(options)
        self._check_open()
        merged = {**self._options, **options}
        if ENGINE_OPTIONS & options.keys():
            return self._reload(merged)
        return type(self)(self._engine, merged, self._around, self._reload, self._schema)

    # ------------------------------------------------------------ opening
    def _opening(self, call: Call) -> Flow[ModelInfo]:
        """Open the model, where observers see it; the installed ones are found before the first is opened."""
        begun = time.perf_counter()
        yield from find()
        try:
            return (yield from watched(call, self._engine.backend, None, self._opened(call)))
        except AiaasError as error:
            raise self._located(error, call, begun) from error.__cause__

    def _opened(self, call: Call) -> Flow[ModelInfo]:
        """Open the model. With a deadline, a peer that says 503 (the model still loads) is waited for until then."""
        pause, told = LOADING, False
        while True:
            try:
                info = with_explain((yield from self._engine.backend.opening(call)))
                call.model, call.version = info.name, info.version
                self._engine.backend.known = info
                return info
            except (ModelNotReadyError, UnavailableError) as error:
                if call.deadline is None or not error.retryable or error.status not in (None, 503):
                    raise
                if not told:
                    logger.info("%s isn't ready yet; waiting for it", self._engine.backend.address)
                    told = True
                pause = max(pause, error.retry_after or 0.0)
                if time.monotonic() + pause > call.deadline:
                    raise
                yield from sleep(pause)
                pause = min(2 * pause, LONGEST)

    # ------------------------------------------------------------ predict
    def _predict(self, call: Call, inputs: Any, outputs: Sequence[str] | None) -> Flow[Prediction]:
        begun, done = time.perf_counter(), None
        watch = watching(call, self._engine.backend, self._engine.info)
        try:
            asked = self._asked(call, inputs, outputs)
            if watch is not None:
                watch.start(asked[0])
            answer = yield from self._engine.backend.start(call, asked[0], asked[1])
            done = self._given(call, asked, answer, begun)
            return done
        except AiaasError as error:
            raise self._located(error, call, begun) from error.__cause__
        finally:
            self._engine.count(call, done is None, begun)
            if watch is not None:
                watch.finish(done is None)

    def _predict_at_once(self, at_once: Callable[..., Any], call: Call, inputs: Any, outputs: Any) -> Prediction:
        """`_predict` without a flow, for a call here without a deadline: the flow costs it 30 microseconds."""
        begun, done = time.perf_counter(), None
        watch = watching(call, self._engine.backend, self._engine.info)
        try:
            asked = self._asked(call, inputs, outputs)
            if watch is not None:
                watch.start(asked[0])
            done = self._given(call, asked, at_once(call, asked[0], asked[1]), begun)
            return done
        except AiaasError as error:
            raise self._located(error, call, begun) from error.__cause__
        finally:
            self._engine.count(call, done is None, begun)
            if watch is not None:
                watch.finish(done is None)

    def _asked(
        self, call: Call, inputs: Any, outputs: Sequence[str] | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...], Kind]:
        """The inputs as tensors, the outputs that are wanted, and the kind of arrays to give back."""
        info = self._engine.info
        assert info is not None  # the face has opened it
        call.model = info.name
        named = given(inputs, info)
        tensors = {spec.name: take(named[spec.name], spec, where=info.name) for spec in info.inputs or _specs(named)}
        call.rows = _rows(tensors)
        wanted = () if outputs is None else _wanted(outputs, info)
        return tensors, wanted, Kind.of(inputs if type(inputs) is not list else ())

    def _given(
        self,
        call: Call,
        asked: tuple[dict[str, Tensor], tuple[str, ...], Kind],
        answer: Mapping[str, Tensor],
        begun: float,
    ) -> Prediction:
        info = self._engine.info
        assert info is not None
        _, wanted, kind = asked
        _check_answer(answer, info, wanted)
        arrays = {name: kind.give(tensor) for name, tensor in answer.items()}
        call.version = call.version or info.version
        call.backend = call.backend or self._engine.backend.scheme
        call.total = time.perf_counter() - begun
        return Prediction(call, arrays, answer, info.labels)

    # ------------------------------------------------------------ records
    def _records(self) -> Bound | None:
        """The records of this model, checked against its signature once; None where it was loaded without."""
        if self._schema is not None and self._bound is None:
            assert self._engine.info is not None
            self._bound = self._schema.bind(self._engine.info)
        return self._bound

    def _answered(self, inputs: Any, outputs: Sequence[str] | None, deadline: Deadline | None) -> Flow[Any]:
        """`predict`, for arrays or records."""
        if self._schema is None:
            return self._predict(self._call("predict", deadline), inputs, outputs)
        return self._for_records(inputs, outputs, deadline)

    def _for_records(self, inputs: Any, outputs: Sequence[str] | None, deadline: Deadline | None) -> Flow[Any]:
        bound = self._records()
        assert bound is not None
        records = records_in(inputs, bound.input)
        if records is None:
            answer = yield from self._predict(self._call("predict", deadline), inputs, outputs)
            if bound.input is not None:  # arrays in, arrays out
                return answer
            return bound.decode(answer, answer.usage.rows or 0 if bound.batched else 1)
        found: list[Any] = []
        size = len(records) if bound.batched else 1
        for first in range(0, len(records), max(1, size)):
            group = records[first : first + size]
            answer = yield from self._predict(self._call("predict", deadline), bound.encode(group, first), None)
            found += _items(answer, bound, len(group), first)
        return found if isinstance(inputs, list | tuple) else found[0]

    def _encoder(self) -> Callable[[Any], Any] | None:
        """Arrays of a row of `map`, which may be a record; None where no row is one."""
        bound = self._records()
        if bound is None or bound.input is None:
            return None

        def encode(row: Any) -> Any:
            if records_in([row], bound.input) is None:
                return row
            return {name: array[0] for name, array in bound.encode([row]).items()}

        return encode

    def _decoder(self) -> Callable[[int, RowOf], Any] | None:
        """The record of a row's answer, or the error that it is none; None where answers stay predictions."""
        bound = self._records()
        if bound is None or bound.output is None:
            return None

        def decode(row: int, answer: RowOf) -> Any:
            try:
                return bound.decode(answer.as_batch(), 1, row)[0]
            except AiaasError as error:
                error.row = row
                return error

        return decode

    # ------------------------------------------------------------ map
    def _course(
        self,
        info: ModelInfo,
        batch_size: int | None,
        concurrency: int | None,
        on_error: OnError,
        checkpoint: str | PathLike[str] | None,
    ) -> Course:
        check(info, batch_size, concurrency, on_error, checkpoint)
        return Course(
            pace=self._pace(concurrency or self._options.get("concurrency")),
            limit=size(info, batch_size or self._options.get("batch_size")),
            on_error=on_error,
            decode=self._decoder(),
            checkpoint=None if checkpoint is None else partial(self._checkpoint, Path(checkpoint), info),
        )

    def _pace(self, concurrency: int | None) -> Pace:
        """Calls in flight: as many as were asked for; else one here, and for an endpoint what it carries."""
        parallel = self._engine.backend.parallel
        if concurrency is not None or parallel == 1:
            return Pace.fixed(concurrency or 1)
        limits, hedge = self._options.get("limits"), self._options.get("hedge")
        most = MOST if limits is None or limits.concurrency is None else min(MOST, limits.concurrency)
        return Pace(min(parallel, most), most=most, attempts=1 if hedge is None else hedge.requests)

    def _checkpoint(self, path: Path, info: ModelInfo) -> Checkpoint:
        from aiaas_sdk.mapping.checkpoint import Checkpoint

        return Checkpoint(path, info, str(self._engine.backend.address))

    def _located(self, error: AiaasError, call: Call, begun: float) -> AiaasError:
        deadline = call.deadline
        return error.locate(
            address=str(self._engine.backend.address),
            attempts=call.tries,
            allowed=call.allowed,
            elapsed=time.perf_counter() - begun if deadline is None else deadline.elapsed,
            timeout=None if deadline is None else deadline.timeout,
        )


def _rows(tensors: Mapping[str, Tensor]) -> int:
    for tensor in tensors.values():
        if shape := tensor.array.shape:
            return int(shape[0])
    return 0


def _items(answer: Prediction, bound: Bound, count: int, first: int) -> list[Any]:
    """One answer a record: a record where the model was loaded with `output=`, else its row of the prediction."""
    if bound.output is not None:
        return bound.decode(answer, count, first)
    return [answer.row(index) for index in range(count)] if bound.batched else [answer]


def _specs(named: Mapping[str, Any]) -> Sequence[TensorSpec]:
    """For a model without a signature what came is what is expected."""
    return [TensorSpec(name, *_described(value)) for name, value in named.items()]


def _described(value: Any) -> tuple[str, tuple[int, ...]]:
    import numpy as np

    shape = value.shape if hasattr(value, "shape") else np.shape(value)
    return datatype_of(value), tuple(int(size) for size in shape)


def _wanted(outputs: Sequence[str], info: ModelInfo) -> tuple[str, ...]:
    known = [spec.name for spec in info.outputs]
    if isinstance(outputs, str):
        raise InputError(f"outputs is the text {outputs!r}", hint=f"Give a list: outputs=[{outputs!r}]")
    for name in outputs:
        if known and name not in known:
            raise InputError(f"{info.name} has no output {name!r}; it has {', '.join(known)}")
    return tuple(outputs)


def _check_answer(answer: Mapping[str, Tensor], info: ModelInfo, wanted: Sequence[str]) -> None:
    """The other side of the call: what came is what was asked for, in the shape that was announced.

    Another datatype than the announced one is returned as what it says it is: some servers' metadata is written by
    hand, and a caller can see an array's dtype.
    """
    if not answer or (type(answer) is not dict and not isinstance(answer, Mapping)):
        raise ProtocolError(f"{info.name} answered with {_told(answer)} where outputs by name belong")
    for name in wanted:
        if name not in answer:
            raise ProtocolError(f"{info.name} left out the output {name!r}")
    for name, tensor in answer.items():
        if type(name) is not str or type(tensor) is not Tensor or not holds(tensor):
            raise ProtocolError(
                f"{info.name} gave as output {name!r} {_told(tensor)}, which is no tensor of its datatype"
            )
    for spec in info.outputs:
        tensor = answer.get(spec.name)  # type: ignore[assignment]
        if tensor is not None and not matches(spec, tensor.array.shape):
            raise ProtocolError(
                f"{info.name} gave {spec.name!r} in the shape {list(tensor.shape)}; announced is {list(spec.shape)}"
            )


def _told(value: Any) -> str:
    return "nothing" if value is None or value == {} else kind_of(value)
