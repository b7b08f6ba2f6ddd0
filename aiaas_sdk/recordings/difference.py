"""What a call has that a recorded one hasn't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiaas_sdk.recordings.calls import Asked, Recorded
from aiaas_sdk.tensors import Kind, Tensor, storage

__all__ = ["Difference", "differences", "nearest"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes:
        text: what it is, without contents: fit for an error's message.
        weight: 1 and more for another form, below 1 the share of the elements that differ.
        values: the first differing element, here and as it was recorded; None where there is none.
    """

    text: str
    weight: float = 1.0
    values: tuple[Any, Any] | None = None


def nearest(asked: Asked, recorded: Sequence[Recorded]) -> tuple[Recorded, list[Difference]] | None:
    """The call of the same model and verb that differs least, and how; the earliest of several."""
    alike = [call for call in recorded if (call.asked.address, call.asked.verb) == (asked.address, asked.verb)]
    found = [(call, differences(asked, call.asked)) for call in alike]
    return min(found, key=lambda pair: sum(difference.weight for difference in pair[1]), default=None)


def differences(asked: Asked, recorded: Asked) -> list[Difference]:
    """What differs between two calls of one model and verb; nothing for equal calls."""
    return [*_inputs(asked.inputs, recorded.inputs), *_options(asked.options, recorded.options)]


def _inputs(asked: Mapping[str, Tensor], recorded: Mapping[str, Tensor]) -> Iterator[Difference]:
    for name in asked.keys() - recorded.keys():
        yield Difference(f"input {name!r} wasn't there")
    for name in recorded.keys() - asked.keys():
        yield Difference(f"input {name!r} is missing")
    for name in sorted(asked.keys() & recorded.keys()):
        yield from _tensors(f"input {name!r}", asked[name], recorded[name])


def _tensors(what: str, asked: Tensor, recorded: Tensor) -> Iterator[Difference]:
    if asked.datatype != recorded.datatype:
        yield Difference(f"{what} is {asked.datatype} and was {recorded.datatype}")
    if asked.shape != recorded.shape:
        yield Difference(f"{what} has the shape {list(asked.shape)} and had {list(recorded.shape)}")
    if (asked.datatype, asked.shape) != (recorded.datatype, recorded.shape):
        return
    here, there = storage(asked), storage(recorded)
    places = np.flatnonzero(_bits(here) != _bits(there))
    if not places.size:
        return
    first = tuple(int(i) for i in np.unravel_index(places[0], here.shape))
    text = f"{what} differs in {places.size} of {here.size} elements"
    values = Kind.numpy().give(asked)[first], Kind.numpy().give(recorded)[first]
    yield Difference(f"{text}, the first at {list(first)}", places.size / here.size, values)


def _bits(array: Any) -> Any:
    """The elements as they travel: NaN equals itself, and 0.0 isn't -0.0."""
    return array.ravel() if array.dtype == object else array.ravel().view(f"u{array.dtype.itemsize}")


def _options(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted({*asked, *recorded}):
        if asked.get(name) != recorded.get(name):
            yield Difference(f"option {name} is {asked.get(name)!r} and was {recorded.get(name)!r}")
