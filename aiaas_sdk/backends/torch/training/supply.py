"""Rows as batches of tensors on a device.

Rows in memory and Datasets with a length are gone through in an order that seed and epoch decide. DataLoaders and
iterables give their batches in their own order, once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from aiaas_sdk import rows as table
from aiaas_sdk.articles import kind_of
from aiaas_sdk.backends.torch import chance
from aiaas_sdk.backends.torch.training.randomness import order
from aiaas_sdk.errors import AiaasError, InputError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.rows import Data, Feed, Rows
from aiaas_sdk.tensors import Tensor as Stored
from aiaas_sdk.tensors import storage

__all__ = ["ALONE", "Batch", "Odd", "Part", "Supply", "Way", "cuts", "facts", "split", "supply_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """Which of several processes this is: it takes row `rank` of each batch, and each `world`-th after it."""

    rank: int = 0
    world: int = 1

    def borrows(self, rows: int) -> bool:
        """Whether a batch of so many rows has none for this process."""
        return rows <= self.rank

    def of(self, begin: int, end: int) -> slice:
        """Its places of those from `begin` to `end`; the first one, which is another's, where it has none."""
        if self.borrows(end - begin):
            return slice(begin, begin + 1)
        return slice(begin + self.rank, end, self.world)


ALONE = Part()


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, by input and by output name."""

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    borrowed: bool = False
    """It has fewer rows than there are processes, and none for this one: this is another's, and counts nothing."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Odd:
    """The first NaN or infinity in rows that a user's own code makes: told where a loss becomes one.

    It is no fault by itself, since a module may make sense of it. Rows on a GPU aren't looked at: it would be waited
    for.
    """

    told: str | None = None

    def look(self, rows: Rows, place: Callable[[int], str]) -> None:
        """`place` says where a row of these came from."""
        if self.told is None and _on_the_cpu(rows) and (wrong := table.astray(rows)) is not None:
            self.told = f"{wrong[0]} in {place(wrong[1])}"


def _on_the_cpu(rows: Rows) -> bool:
    arrays = [stored.array for side in _sides(rows) for stored in side.values()]
    return all(array.device.type == "cpu" for array in arrays if isinstance(array, Tensor))


class Supply(Protocol):
    """Where batches come from.

    Attributes:
        count: rows of an epoch, None where nobody knows.
        batches: of an epoch, None where nobody knows.
        foreign: a user's own code makes the rows.
        replayed: who goes on within an epoch has to read what lies before, too.
        odd: the first number that is none.
    """

    count: int | None
    batches: int | None
    foreign: bool
    replayed: bool
    odd: Odd

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of the epoch with this number, from 0 on, without the first `skip` of them."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """How batches are made: rows in each, on which device, in an order of which seed (None: as they stand)."""

    size: int
    device: torch.device
    seed: int | None
    part: Part = ALONE


def supply_of(source: Rows | Feed, info: ModelInfo, way: Way, epochs: int) -> Supply:
    """The batches of what was handed over.

    Raises:
        InputError: an iterator that can be read once is to be read several times, or there is nothing in it.
    """
    if isinstance(source, Rows):
        return Held(source, way)
    origin = source.origin
    if isinstance(origin, Dataset) and not isinstance(origin, IterableDataset) and hasattr(origin, "__len__"):
        return Listed(origin, info, way)
    if not hasattr(origin, "__iter__") and hasattr(origin, "__getitem__") and hasattr(origin, "__len__"):
        return Listed(origin, info, way)
    if epochs > 1 and not callable(origin) and iter(origin) is origin:
        raise InputError(
            f"x is {kind_of(origin)}, which can be read once, and epochs is {epochs}",
            hint="Give a list, or the function that makes it: fit(lambda: ...)",
        )
    return Streamed(origin, info, way)


def facts(data: Data) -> dict[str, Any]:
    """How many rows there are, and which, as far as that is known; of those to check with, too, where they are other
    ones."""
    found = _facts(data.training)
    return found if data.validation is None else {**found, "validation": _facts(data.validation)}


def _facts(source: Rows | Feed) -> dict[str, Any]:
    return {"rows": _length(source), "digest": source.digest() if isinstance(source, Rows) else None}


def split(source: Rows | Feed, share: float, seed: int) -> tuple[Rows | Feed, Rows | Feed]:
    """Rows to train with, and a share of them, drawn by the seed, to check with; each at least one."""
    count = _length(source)
    if count is None or count < 2:
        raise InputError(
            "validation is a share, and there is no known number of rows from 2 on to take it of",
            hint="Give rows of its own: validation=(x, y)",
        )
    drawn = order(count, seed, -1)
    cut = min(count - 1, max(1, round(share * count)))
    apart, rest = drawn[:cut].sort().values, drawn[cut:].sort().values
    return _taken(source, rest), _taken(source, apart)


def _length(source: Rows | Feed) -> int | None:
    if isinstance(source, Rows):
        return len(source)
    origin = source.origin
    listed = hasattr(origin, "__getitem__") and hasattr(origin, "__len__") and not isinstance(origin, DataLoader)
    return len(origin) if listed else None


def _taken(source: Rows | Feed, places: Tensor) -> Rows | Feed:
    if isinstance(source, Feed):
        return Feed(torch.utils.data.Subset(source.origin, places.tolist()))
    return Rows(*({n: _picked(t, places) for n, t in side.items()} for side in _sides(source)))


def _sides(rows: Rows) -> tuple[Mapping[str, Stored], Mapping[str, Stored]]:
    return rows.inputs, rows.targets


def _picked(stored: Stored, places: Tensor) -> Stored:
    array = stored.array
    return Stored(stored.datatype, array[places] if isinstance(array, Tensor) else array[places.numpy()])


def cuts(count: int, size: int) -> list[int]:
    """Where batches begin, and the end. A last batch of one row joins the one before it: batch normalisation can't
    learn from one row."""
    found = [*range(0, count, size), count]
    if count % size == 1 and len(found) > 2:
        del found[-2]
    return found


# ---------------------------------------------------------------- in memory
class Held:
    """Rows in memory."""

    foreign = replayed = False

    def __init__(self, rows: Rows, way: Way) -> None:
        self._way, self.odd = way, Odd()
        self.count: int | None = len(rows)
        self._inputs, self._targets = ({n: _tensor(t) for n, t in side.items()} for side in _sides(rows))
        self._cuts = cuts(len(rows), way.size)
        self.batches: int | None = len(self._cuts) - 1

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        way = self._way
        places = None if way.seed is None else order(self._cuts[-1], way.seed, number)
        for begin, end in list(zip(self._cuts, self._cuts[1:], strict=False))[skip:]:
            chosen: Any = way.part.of(begin, end)
            borrowed = way.part.borrows(end - begin)
            if places is not None:
                chosen = places[chosen]
            yield Batch(self._some(self._inputs, chosen), self._some(self._targets, chosen), borrowed)

    def _some(self, tensors: Mapping[str, Tensor], chosen: Any) -> dict[str, Tensor]:
        return {name: tensor[chosen].to(self._way.device) for name, tensor in tensors.items()}


def _tensor(stored: Stored) -> Tensor:
    """In memory of its own kind; numpy's memory is shared, and never written."""
    if isinstance(stored.array, Tensor):
        return stored.array
    array = storage(stored)
    if not array.flags.writeable:
        array = array.copy()  # torch has no read-only tensors
    if stored.datatype == "BF16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


# ---------------------------------------------------------------- datasets
class Listed:
    """Whatever gives one row for each index: a Dataset with a length."""

    foreign = True
    replayed = False

    def __init__(self, origin: Any, info: ModelInfo, way: Way) -> None:
        self._origin, self._info, self._way, self.odd = origin, info, way, Odd()
        self.count: int | None = len(origin)
        if not self.count:
            raise InputError(f"{info.name}: there are no rows to train with")
        self._cuts = cuts(self.count, way.size)
        self.batches: int | None = len(self._cuts) - 1

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        way, count = self._way, len(self._origin)
        seeded = order(count, way.seed, number) if way.seed is not None else torch.arange(count)
        places: Sequence[int] = seeded.tolist()
        for begin, end in list(zip(self._cuts, self._cuts[1:], strict=False))[skip:]:
            yield self._batch(places[way.part.of(begin, end)], way.part.borrows(end - begin))

    def _batch(self, places: Sequence[int], borrowed: bool) -> Batch:
        x, y = zip(*(table.pair(self._row(place), f"row {place}") for place in places), strict=True)
        rows = table.rows(_joined(x), _joined(y), self._info)
        self.odd.look(rows, lambda index: f"row {places[index]}")
        return _batch(rows, self._way.device, borrowed)

    def _row(self, place: int) -> Any:
        try:
            return self._origin[place]
        except AiaasError:
            raise
        except Exception as error:
            told = f"row {place} can't be read ({type(error).__name__}: {error})"
            raise InputError(told) from error


def _joined(values: Sequence[Any]) -> Any:
    """Rows as a batch."""
    if isinstance(values[0], str):
        return list(values)
    try:
        return default_collate(list(values))
    except (RuntimeError, TypeError, ValueError) as error:
        told = str(error).splitlines()[0][:200]
        hint = "Give rows of one shape and dtype"
        raise InputError(f"rows of one batch can't be joined: {told}", hint=hint) from None


# ---------------------------------------------------------------- batches of somebody else
class Streamed:
    """A DataLoader or an iterable: its own batches, or its own rows, in its own order."""

    foreign = replayed = True

    def __init__(self, origin: Any, info: ModelInfo, way: Way) -> None:
        self._origin, self._info, self._way, self.odd = origin, info, way, Odd()
        self.count: int | None = None
        self.batches: int | None = self._known()

    def _known(self) -> int | None:
        if isinstance(self._origin, DataLoader | list | tuple):
            try:
                return len(self._origin) if self._origin and not self._by_row(self._first()) else None
            except TypeError:  # a loader of what has no length
                return None
        return None

    def _first(self) -> Any:
        """A look at the first item; random numbers that a loader draws for it come back."""
        state = None if self.generator is None else self.generator.get_state()
        with chance.apart():
            found = next(iter(self._origin))
        if self.generator is not None and state is not None:
            self.generator.set_state(state)
        return found

    def _by_row(self, item: Any) -> bool:
        """Whether it is one row, and no batch: its array has an axis less than the input."""
        x, _ = table.pair(item, "x")
        spec = self._info.inputs[0]
        first = x.get(spec.name) if isinstance(x, Mapping) else x
        shape = getattr(first, "shape", None)
        return shape is not None and len(shape) == len(spec.shape) - 1

    @property
    def generator(self) -> torch.Generator | None:
        """Of a DataLoader that draws its order from one of its own."""
        found = getattr(self._origin, "generator", None)
        return found if isinstance(found, torch.Generator) else None

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        part = self._way.part
        found = False
        for batch, (x, y) in islice(enumerate(self._merged()), skip, None):
            found = True
            height = _height(x) if part.world > 1 else 0
            if part.world > 1:
                x, y = (_share(value, part.of(0, height)) for value in (x, y))
            rows = table.rows(x, y, self._info)
            self.odd.look(rows, partial(_place, range(height)[part.of(0, height)] if height else None, batch))
            yield _batch(rows, self._way.device, part.world > 1 and part.borrows(height))
        if not found and not skip:
            hint = "Give what can be read once an epoch: a list, a function"
            raise InputError(f"x gave no batches in epoch {number + 1}", hint=hint)

    def _items(self) -> Iterator[Any]:
        origin = self._origin() if callable(self._origin) else self._origin
        yield from (table.pair(item, f"item {place}") for place, item in enumerate(origin))

    def _batched(self) -> Iterator[tuple[Any, Any]]:
        items = self._items()
        first = next(items, None)
        if first is None:
            return
        if not self._by_row(first):
            yield first
            yield from items
            return
        group = [first, *islice(items, self._way.size - 1)]
        while group:
            x, y = zip(*group, strict=True)
            yield _joined(x), _joined(y)
            group = list(islice(items, self._way.size))

    def _merged(self) -> Iterator[tuple[Any, Any]]:
        """A last batch of one row joins the one before it."""
        before = last = None
        for batch in self._batched():
            if before is not None:
                yield before
            before, last = last, batch
        if before is not None and last is not None and _height(last[0]) == 1:
            yield _both(before[0], last[0]), _both(before[1], last[1])
            return
        yield from (batch for batch in (before, last) if batch is not None)


def _height(x: Any) -> int:
    first = next(iter(x.values())) if isinstance(x, Mapping) else x
    return len(first)


def _both(a: Any, b: Any) -> Any:
    if isinstance(a, Mapping):
        return {name: _both(a[name], b[name]) for name in a}
    if isinstance(a, list | tuple):
        return [*a, *b]
    return torch.cat((torch.as_tensor(a), torch.as_tensor(b)))


def _share(value: Any, chosen: slice) -> Any:
    if isinstance(value, Mapping):
        return {name: _share(each, chosen) for name, each in value.items()}
    return value[chosen]


def _place(places: Sequence[int] | None, batch: int, index: int) -> str:
    return f"row {index if places is None else places[index]} of batch {batch}"


def _batch(rows: Rows, device: torch.device, borrowed: bool) -> Batch:
    inputs, targets = ({n: _tensor(t).to(device) for n, t in side.items()} for side in _sides(rows))
    return Batch(inputs, targets, borrowed)
