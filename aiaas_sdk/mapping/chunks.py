"""Rows into batches of consecutive rows of one shape."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, InputError
from aiaas_sdk.mapping.inputs import given
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor, datatype_of, holds, storage, take

__all__ = ["AwaitedChunks", "Chunk", "Encode", "chunks", "length", "size"]

DEFAULT_BATCH = 32
ROOM = 1 << 24
"""Bytes that a batch of rows which come one by one is given at first; it grows where the rows need more."""
Encode = Callable[[Any], Any]
"""Arrays of a row, where a row is a record."""


@dataclass(slots=True)
class Chunk:
    """Consecutive rows of one shape: their indices, and `inputs` by name. `failure`: the only row is no input."""

    rows: range
    inputs: Mapping[str, Tensor]
    failure: AiaasError | None = None

    def part(self, begin: int, end: int) -> Chunk:
        """Some of its rows, counted from its first one, as views."""
        inputs = {name: Tensor(t.datatype, t.array[begin:end]) for name, t in self.inputs.items()}
        return Chunk(self.rows[begin:end], inputs)


def size(info: ModelInfo, batch_size: int | None) -> int:
    """Rows in a batch: as asked for, at most what the model takes."""
    most = info.metadata.get("max_batch_size")
    wanted = batch_size or DEFAULT_BATCH
    return min(wanted, most) if isinstance(most, int) and most > 0 else wanted


def length(rows: Any) -> int | None:
    """How many rows there are, where that can be known without reading them."""
    if isinstance(rows, Mapping):
        return next((len(column) for column in rows.values() if hasattr(column, "__len__")), None)
    return len(rows) if hasattr(rows, "__len__") else None


# ---------------------------------------------------------------- any source
def chunks(rows: Iterable[Any], info: ModelInfo, limit: int, encode: Encode | None) -> Iterator[Chunk]:
    """Batches of at most `limit` rows. `rows` is read no further than the batch that comes next.

    An array, or a mapping from input name to arrays, is cut into views; other rows are joined as they come.

    Raises:
        InputError: these can't be rows. What the source itself raises comes after the rows before it.
    """
    columns = _columns(rows, info, encode)
    if columns is None:
        return _joined(_each(rows), _Batch(info, limit, encode))
    return _cut(columns, info, limit)


class AwaitedChunks:
    """As `chunks`, of rows that have to be awaited."""

    def __init__(self, rows: AsyncIterable[Any], info: ModelInfo, limit: int, encode: Encode | None) -> None:
        self._rows = aiter(rows)
        self._batch = _Batch(info, limit, encode)
        self._ready: deque[Chunk] = deque()
        self._ended = False
        self._failure: Exception | None = None

    async def next(self) -> Chunk | None:
        """The next batch; None at the end. What the source itself raises comes after the rows before it."""
        while not self._ready and not self._ended:
            try:
                self._ready.extend(self._batch.put(await anext(self._rows)))
            except StopAsyncIteration:
                self._end()
            except Exception as error:
                self._end(error)
        if self._ready:
            return self._ready.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    def _end(self, failure: Exception | None = None) -> None:
        self._ended, self._failure = True, failure
        self._ready.extend(self._batch.rest())


def _joined(rows: Iterator[Any], batch: _Batch) -> Iterator[Chunk]:
    try:
        for row in rows:
            yield from batch.put(row)
    except Exception:  # the source's own; what it gave before is still asked
        yield from batch.rest()
        raise
    yield from batch.rest()


def _each(rows: Any) -> Iterator[Any]:
    if isinstance(rows, str | bytes):
        raise InputError("map was given a text; it takes rows", hint="Give a list of texts")
    if hasattr(rows, "columns") and hasattr(rows, "__array__"):  # pandas' and polars': iterating gives no rows
        hint = "Give its numbers, rows.to_numpy(), as the datatype that the model wants, or {NAME: column}"
        raise InputError(f"map was given {kind_of(rows)}; it takes rows", hint=hint)
    if hasattr(rows, "__aiter__"):
        raise InputError("map was given rows that must be awaited", hint="Load the model with load_async")
    try:
        if not isinstance(rows, Mapping):
            return iter(rows)
        lengths = {name: len(column) for name, column in rows.items()}
    except TypeError as error:
        raise InputError(
            f"map was given something else than rows: {error}",
            hint="Give an iterable of rows, an array, or a mapping from input name to arrays or lists",
        ) from None
    if len(set(lengths.values())) > 1:
        raise InputError(f"map was given inputs of different lengths: {lengths}")
    return (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))


# ---------------------------------------------------------------- arrays
def _columns(rows: Any, info: ModelInfo, encode: Encode | None) -> Mapping[str, Any] | None:
    """The arrays to cut batches from; None where rows come one by one, or must be told what is wrong one by one."""
    if isinstance(rows, Mapping):
        if encode is not None or not rows or not all(map(_cuttable, rows.values())):
            return None
        if len({len(column) for column in rows.values()}) > 1:
            return None
    elif not _cuttable(rows):
        return None
    try:
        return given(rows, info)
    except InputError:
        return None


def _cuttable(value: Any) -> bool:
    import numpy as np

    torch = sys.modules.get("torch")
    kinds = (np.ndarray, torch.Tensor) if torch is not None and hasattr(torch, "Tensor") else np.ndarray
    return isinstance(value, kinds) and value.ndim > 0


def _cut(columns: Mapping[str, Any], info: ModelInfo, limit: int) -> Iterator[Chunk]:
    count = len(next(iter(columns.values())))
    specs = info.inputs or [TensorSpec(n, datatype_of(c), (-1, *map(int, c.shape[1:]))) for n, c in columns.items()]
    for first in range(0, count, limit):
        rows = range(first, min(first + limit, count))
        parts = {name: column[rows.start : rows.stop] for name, column in columns.items()}
        try:
            chunk = Chunk(rows, {spec.name: take(parts[spec.name], spec, where=info.name) for spec in specs})
        except AiaasError:  # told row by row: one of them may be at fault
            yield from _joined(_each(parts), _Batch(info, limit, None, first))
        else:
            yield chunk


# ---------------------------------------------------------------- rows
class _Batch:
    """Rows on their way into a batch. numpy rows are copied as they come: a source may fill one array again."""

    def __init__(self, info: ModelInfo, limit: int, encode: Encode | None, first: int = 0) -> None:
        self._info, self._limit, self._encode = info, limit, encode
        self._specs = [TensorSpec(spec.name, spec.datatype, spec.shape[1:]) for spec in info.inputs]
        self._next, self._held = first, 0
        self._form: Any = None
        self._columns: list[_Rows | _TorchRows] = []

    def put(self, row: Any) -> Sequence[Chunk]:
        """Take in the next row; the batches that are complete by it."""
        index, self._next = self._next, self._next + 1
        try:
            taken = self._taken(row if self._encode is None else self._encode(row))
        except AiaasError as error:
            return (*self._flushed(index), Chunk(range(index, index + 1), {}, error))
        form = _form(taken)
        done = self._flushed(index) if form != self._form else ()
        if not self._held:
            self._form = form
            self._columns = [_rows_like(tensor, self._limit) for tensor in taken.values()]
        for column, tensor in zip(self._columns, taken.values(), strict=True):
            column.add(tensor.array)
        self._held += 1
        return (*done, *self.rest()) if self._held == self._limit else done

    def rest(self) -> Sequence[Chunk]:
        """What is held."""
        return self._flushed(self._next)

    def _flushed(self, end: int) -> Sequence[Chunk]:
        """What is held: the rows before this one."""
        if not self._held:
            return ()
        names = ((name, datatype) for name, datatype, *_ in self._form)
        inputs = {name: Tensor(kind, c.whole()) for (name, kind), c in zip(names, self._columns, strict=True)}
        rows, self._held = range(end - self._held, end), 0
        return (Chunk(rows, inputs),)

    def _taken(self, row: Any) -> dict[str, Tensor]:
        """The row by input name, each without its batch axis."""
        named = given(row, self._info)
        specs = self._specs or [TensorSpec(name, datatype_of(v), _shape(v)) for name, v in named.items()]
        taken = {spec.name: take(named[spec.name], spec, where=self._info.name) for spec in specs}
        for name, tensor in taken.items():
            if tensor is named[name] and not holds(tensor):
                raise InputError(f"input {name!r} of {self._info.name} is no tensor of its datatype {tensor.datatype}")
        return taken


def _shape(value: Any) -> tuple[int, ...]:
    import numpy as np

    return tuple(value.shape if hasattr(value, "shape") else np.shape(value))


def _form(row: Mapping[str, Tensor]) -> Any:
    """What rows must have in common to be one batch."""
    return [(name, t.datatype, t.array.shape, getattr(t.array, "device", None)) for name, t in row.items()]


class _Rows:
    """numpy rows of one shape, one behind the other in memory."""

    def __init__(self, first: Tensor, limit: int) -> None:
        import numpy as np

        row = storage(first)
        self._limit, self._count = limit, 0
        self._array = np.empty((min(limit, max(1, ROOM // max(1, row.nbytes))), *row.shape), row.dtype)

    def add(self, row: Any) -> None:
        if self._count == len(self._array):
            self._grow()
        self._array[self._count, ...] = row  # without the dots an array of objects would hold one without axes
        self._count += 1

    def _grow(self) -> None:
        import numpy as np

        smaller = self._array
        self._array = np.empty((min(self._limit, 2 * len(smaller)), *smaller.shape[1:]), smaller.dtype)
        self._array[: len(smaller)] = smaller

    def whole(self) -> Any:
        return self._array[: self._count]


class _TorchRows:
    """torch rows of one shape and device."""

    def __init__(self) -> None:
        self._rows: list[Any] = []

    def add(self, row: Any) -> None:
        self._rows.append(row)

    def whole(self) -> Any:
        return sys.modules["torch"].stack(self._rows)


def _rows_like(first: Tensor, limit: int) -> _Rows | _TorchRows:
    torch = sys.modules.get("torch")
    return _TorchRows() if torch is not None and isinstance(first.array, torch.Tensor) else _Rows(first, limit)
