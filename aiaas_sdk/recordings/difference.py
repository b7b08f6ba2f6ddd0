"""What a call has that a recorded one hasn't."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiaas_sdk.recordings.calls import Asked, Recorded, compared
from aiaas_sdk.tensors import Kind, Tensor, storage

__all__ = ["Difference", "differences", "nearest"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes:
        text: what it is, without contents: fit for an error's message.
        weight: 1 and more for another form, below 1 the share of the elements or characters that differ.
        values: the first differing element, or the beginning of what differs in a text, here and as it was recorded;
            None where there is none.
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
    return [
        *_inputs(asked.inputs, recorded.inputs),
        *_words(compared(asked.words), compared(recorded.words)),
        *_options(asked.options, recorded.options),
    ]


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


# ---------------------------------------------------------------- words
_ONE = {"prompt": "message", "tools": "tool", "texts": "text"}
"""What one of a list is called."""
_SHOWN = re.compile(
    r"message \d+ (role|name)|message \d+ content \d+ (attachment|type)|message \d+ tool_calls \d+ name|tool \d+ name"
    r"|the schema name"
)
"""What is no content, and may stand in an error."""
_NOTHING_ALIKE = 3.0
"""The weight of another kind of value: more than that of a message that is missing and another that differs."""
_EXCERPT = 20
"""Characters of a text that are shown from where it differs, in a test's report alone."""


def _words(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*asked, *recorded)):
        here, there = asked.get(name, _none(name)), recorded.get(name, _none(name))
        if isinstance(here, list) and isinstance(there, list):
            yield from _lists(f"{_ONE[name]}s", _ONE[name], here, there)
        elif here is None or there is None:
            yield Difference(f"the {name} is missing" if here is None else f"the {name} wasn't there")
        else:
            yield from _unlike(f"the {name}", here, there)


def _none(name: str) -> Any:
    return [] if name == "tools" else None


def _unlike(what: str, asked: Any, recorded: Any) -> Iterator[Difference]:
    """What differs between two values that JSON has."""
    kinds = _kind(asked), _kind(recorded)
    if kinds[0] != kinds[1]:
        yield Difference(f"{what} is {kinds[0]} and was {kinds[1]}", _NOTHING_ALIKE)
    elif isinstance(asked, str):
        yield from _texts(what, asked, recorded)
    elif isinstance(asked, list):
        yield from _lists(f"elements of {what}", what, asked, recorded)
    elif isinstance(asked, Mapping):
        yield from _objects(what, asked, recorded)
    elif repr(asked) != repr(recorded):  # 1 and 1.0 are written differently
        yield Difference(f"{what} differs", values=(asked, recorded))


def _kind(value: Any) -> str:
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _texts(what: str, asked: str, recorded: str) -> Iterator[Difference]:
    if asked == recorded:
        return
    if what.endswith(" sha256"):
        yield Difference(f"{what} differs")
    elif _SHOWN.fullmatch(what):
        yield Difference(f"{what} is {asked!r} and was {recorded!r}")
    else:
        first, last = _alike(asked, recorded), _alike(asked[::-1], recorded[::-1])
        longest = max(len(asked), len(recorded))
        excerpts = asked[first : first + _EXCERPT], recorded[first : first + _EXCERPT]
        share = max(1, longest - first - last) / longest
        yield Difference(f"{what} differs at character {first}", share, excerpts)


def _alike(asked: str, recorded: str) -> int:
    """How many characters at the beginning are the same."""
    pairs = enumerate(zip(asked, recorded, strict=False))
    return next((place for place, (here, there) in pairs if here != there), min(len(asked), len(recorded)))


def _lists(several: str, one: str, asked: Sequence[Any], recorded: Sequence[Any]) -> Iterator[Difference]:
    if len(asked) != len(recorded):
        count = f"the number of {several} is {len(asked)} and was {len(recorded)}"
        yield Difference(count, abs(len(asked) - len(recorded)))
    for place, (here, there) in enumerate(zip(asked, recorded, strict=False)):
        yield from _unlike(f"{one} {place}", here, there)


def _objects(what: str, asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*asked, *recorded)):
        if name not in recorded:
            yield Difference(f"{what} has {name!r}, which wasn't there")
        elif name not in asked:
            yield Difference(f"{what} lacks {name!r}")
        else:
            # "message 2" rather than "message 2 content"
            inner = what if name == "content" and isinstance(asked[name], str) else f"{what} {name}"
            yield from _unlike(inner, asked[name], recorded[name])


def _options(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted({*asked, *recorded}):
        if asked.get(name) != recorded.get(name):
            yield Difference(f"option {name} is {asked.get(name)!r} and was {recorded.get(name)!r}")
