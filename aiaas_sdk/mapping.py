"""Rows into batches and answers into rows, for `map`: pure, so that both faces share it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from aiaas_sdk.errors import (
    AiaasError,
    ConfigError,
    InputError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    ServerError,
    UnsupportedOperationError,
)
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor, datatype_of, storage, take

__all__ = ["OF_A_ROW", "Chunk", "OnError", "Outcome", "Progress", "check", "chunks", "given", "length", "records_in"]

OnError: TypeAlias = Literal["raise", "return", "skip"]
Outcome: TypeAlias = "tuple[int, Any]"
"""A row's index, and its answer or its AiaasError."""
OF_A_ROW = (InputError, InvalidRequestError, ModelError, ServerError, ProtocolError)
"""Failures that one row of a batch may have caused: its rows are then asked one by one."""
DEFAULT_BATCH = 32


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one shape, stacked: `inputs` by name, and the rows' indices. `failure`: the only row is no input."""

    rows: Sequence[int]
    inputs: Mapping[str, Tensor]
    failure: AiaasError | None = None

    def single(self, index: int) -> Mapping[str, Tensor]:
        """One of its rows, as a batch of one."""
        return {name: Tensor(t.datatype, t.array[index : index + 1]) for name, t in self.inputs.items()}


def check(info: ModelInfo, batch_size: int | None, concurrency: int | None, on_error: str, checkpoint: Any) -> None:
    """What `map` was asked for is possible, or an error says what isn't."""
    if checkpoint is not None:
        raise UnsupportedOperationError("map can't write checkpoints in this version", hint="Leave checkpoint= out")
    if on_error not in ("raise", "return", "skip"):
        raise ConfigError(f"on_error is {on_error!r}", hint='Give "raise", "return" or "skip"')
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{name} is {value!r}", hint="Give a whole number from 1 on")
    if (info.inputs or info.outputs) and not info.rows_free:
        raise UnsupportedOperationError(
            f"map isn't available for {info.name}: its first axes aren't rows, so that no batch of it can be split",
            hint="Call predict for each input",
        )


def size(info: ModelInfo, batch_size: int | None) -> int:
    """Rows in a batch: as asked for, at most what the model takes."""
    most = info.metadata.get("max_batch_size")
    wanted = batch_size or DEFAULT_BATCH
    return min(wanted, most) if isinstance(most, int) and most > 0 else wanted


def chunks(
    rows: Iterable[Any], info: ModelInfo, batch_size: int | None, encode: Callable[[Any], Any]
) -> Iterator[Chunk]:
    """Batches of consecutive rows of one shape. `rows` is read no further than the batch that comes next.

    `encode` makes arrays of a row (of a record, say).
    """
    limit = size(info, batch_size)
    held: list[tuple[int, dict[str, Tensor]]] = []
    for index, row in enumerate(_rows(rows)):
        try:
            taken = _row(encode(row), info)
        except AiaasError as error:
            if held:
                yield _stacked(held)
                held = []
            yield Chunk((index,), {}, error)
            continue
        if held and _form(taken) != _form(held[0][1]):
            yield _stacked(held)
            held = []
        held.append((index, taken))
        if len(held) == limit:
            yield _stacked(held)
            held = []
    if held:
        yield _stacked(held)


def _rows(rows: Iterable[Any]) -> Iterator[Any]:
    if isinstance(rows, str | bytes):
        raise InputError("map was given a text; it takes rows", hint="Give a list of texts")
    if not isinstance(rows, Mapping):
        return iter(rows)
    lengths = {name: len(column) for name, column in rows.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"map was given inputs of different lengths: {lengths}")
    return (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))


def _row(row: Any, info: ModelInfo) -> dict[str, Tensor]:
    """One row by input name, each without its batch axis."""
    named = given(row, info)
    specs = info.inputs or [TensorSpec(name, datatype_of(v), (-1, *_shape(v))) for name, v in named.items()]
    return {
        spec.name: take(named[spec.name], TensorSpec(spec.name, spec.datatype, spec.shape[1:]), where=info.name)
        for spec in specs
    }


def _shape(value: Any) -> tuple[int, ...]:
    import numpy as np

    return tuple(value.shape if hasattr(value, "shape") else np.shape(value))


def _form(row: Mapping[str, Tensor]) -> Any:
    return [(name, t.datatype, t.shape, type(t.array), getattr(t.array, "device", None)) for name, t in row.items()]


def _stacked(held: Sequence[tuple[int, dict[str, Tensor]]]) -> Chunk:
    first = held[0][1]
    inputs = {name: _joined([row[name] for _, row in held]) for name in first}
    return Chunk([index for index, _ in held], inputs)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    arrays = [tensor.array for tensor in tensors]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(arrays[0], torch.Tensor):
        return Tensor(tensors[0].datatype, torch.stack(arrays))
    import numpy as np

    return Tensor(tensors[0].datatype, np.stack([storage(tensor) for tensor in tensors]))


def given(inputs: Any, info: ModelInfo) -> Mapping[str, Any]:
    """Inputs by name: a bare array is the only one. InputError names what is unknown or missing."""
    names = [spec.name for spec in info.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) > 1:
            raise InputError(f"{info.name} has {len(names)} inputs: {', '.join(names)}", hint="Give {NAME: array, ...}")
        return {names[0] if names else "input": inputs}
    unknown = [name for name in inputs if names and name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        import difflib

        near = difflib.get_close_matches(str(unknown[0]), names, 1) if unknown else []
        what = f"unknown input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
        raise InputError(
            f"{info.name}: {what}; its inputs are {', '.join(names)}",
            hint=f"Did you mean {near[0]!r}" if near else None,
        )
    return inputs


def records_in(inputs: Any, kind: type[Any] | None) -> list[Any] | None:
    """The records among what `predict` was given; None where these are arrays.

    A mapping alone is arrays by name; in a list it is a record.
    """
    if kind is None:
        return None
    if not isinstance(inputs, list | tuple):
        return [inputs] if isinstance(inputs, kind) or hasattr(inputs, "model_dump") else None
    return list(inputs) if all(isinstance(i, Mapping) or hasattr(i, "model_dump") for i in inputs) else None


class Progress:
    """A line on stderr, kept up to date; nothing where stderr is no terminal."""

    def __init__(self, total: int | None) -> None:
        self._total, self._done, self._begun, self._shown = total, 0, time.monotonic(), 0.0
        self._on = sys.stderr.isatty()

    def add(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if self._on and now - self._shown > 0.1:
            self._shown = now
            self._write(now)

    def _write(self, now: float) -> None:
        rate = self._done / max(now - self._begun, 1e-9)
        of = f" of {self._total}" if self._total is not None else ""
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._total is not None and rate else ""
        sys.stderr.write(f"\r{self._done}{of} rows, {rate:.0f} rows/s{left}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        if self._on and self._done:
            self._write(time.monotonic())
            sys.stderr.write("\n")


def length(rows: Any) -> int | None:
    """How many rows there are, where that can be known without reading them."""
    if isinstance(rows, Mapping):
        return next((len(column) for column in rows.values() if hasattr(column, "__len__")), None)
    return len(rows) if hasattr(rows, "__len__") else None
