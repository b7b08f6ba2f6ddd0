"""What is to be seen of an explanation, whatever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import InputError

if TYPE_CHECKING:
    from aiaas_sdk.records.explanation import Explanation

__all__ = ["ROWS", "Bars", "Map", "Page", "Scene", "Tokens", "scenes"]

ROWS = 16
"""Rows that are shown."""
FEATURES = 20
"""Bars of a row."""
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Map:
    """Attributions (height, width), over a picture (height, width, 3) of 0 to 255."""

    title: str
    picture: npt.NDArray[np.uint8]
    values: Floats


@dataclass(frozen=True, slots=True)
class Bars:
    """A value for each name, largest size first. `signed`: they speak for or against something."""

    title: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    signed: bool = True


@dataclass(frozen=True, slots=True)
class Tokens:
    title: str
    tokens: tuple[str, ...]
    values: tuple[float, ...]


Scene: TypeAlias = Map | Bars | Tokens


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    notes: tuple[str, ...]
    scenes: tuple[Scene, ...]


def scenes(explanation: Explanation) -> Page:
    """The page of an explanation. InputError where it has no row, or arrays that are no picture."""
    rows = max((len(array) for array in explanation.values()), default=0)
    if not rows:
        raise InputError("an explanation of no rows has no picture")
    found = tuple(_tokens(explanation) if explanation.tokens is not None else _arrays(explanation, rows))
    version = f"@{explanation.version}" if explanation.version else ""
    return Page(f"{explanation.model}{version}: {explanation.method}", tuple(_notes(explanation, rows)), found)


UNSIGNED = {
    "saliency": "the redder, the more the answer changes with it",
    "attention_rollout": "the redder, the more of it arrives at the end of the layers",
}


def _notes(explanation: Explanation, rows: int) -> Iterator[str]:
    what = "speaks for the target, blue against it" if explanation.target else "adds to the answer, blue takes from it"
    yield UNSIGNED.get(explanation.method, f"red {what}")
    if explanation.completeness_error is not None:
        yield f"completeness error {explanation.completeness_error:.2g}"
    if rows > ROWS:
        yield f"{ROWS} of {rows} rows are shown"


def _title(explanation: Explanation, row: int) -> str:
    if explanation.target is None:
        return f"row {row}"
    if explanation.target_tokens is not None:
        return f"row {row}, next token {explanation.target_tokens[row]!r}"
    target, labels = explanation.target[row], explanation.labels
    name = labels[target] if labels is not None and target < len(labels) else str(target)
    return f"row {row}, target {name}"


def _tokens(explanation: Explanation) -> Iterator[Scene]:
    array, tokens = _numpy(explanation.array), explanation.tokens
    assert tokens is not None
    for row in range(min(len(array), ROWS)):
        yield Tokens(_title(explanation, row), tokens[row], tuple(array[row, : len(tokens[row])].tolist()))


def _arrays(explanation: Explanation, rows: int) -> Iterator[Scene]:
    if all(array.ndim <= 2 for array in explanation.values()):
        yield from _table(explanation, rows)
        return
    shown = explanation.shown()
    for row in range(min(rows, ROWS)):
        for name, array in explanation.items():
            title = _title(explanation, row) + (f", {name}" if len(explanation) > 1 else "")
            values = _numpy(array)[row]
            if values.ndim < 2:
                yield _bars(title, _columns(name, values.size), values.reshape(-1))
            else:
                flat = _flat(values, mean=explanation.method == "grad_cam")
                yield Map(title, _picture(np.asarray(shown[name])[row], flat.shape), flat)


def _table(explanation: Explanation, rows: int) -> Iterator[Scene]:
    if rows > 1:
        found = explanation.importance()
        names, values = tuple(found)[:FEATURES], tuple(found.values())[:FEATURES]
        yield Bars(f"mean size over {rows} rows", names, values, signed=False)
    features = explanation.features
    columns = np.concatenate([_numpy(array).reshape(rows, -1) for array in explanation.values()], axis=1)
    for row in range(min(rows, ROWS)):
        yield _bars(_title(explanation, row), features, columns[row])


def _bars(title: str, names: tuple[str, ...], values: Floats) -> Bars:
    order = np.argsort(-np.abs(values), kind="stable")[:FEATURES]
    return Bars(title, tuple(names[place] for place in order), tuple(values[order].tolist()))


def _columns(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}[{column}]" for column in range(count))


# ---------------------------------------------------------------- pictures
def _channels(shape: tuple[int, ...]) -> int | None:
    """The axis of channels of a row; None where there is none."""
    if len(shape) != 3:
        return None
    return 2 if shape[2] <= 4 < shape[0] else 0


def _flat(values: Floats, *, mean: bool) -> Floats:
    """(height, width): channels added up, or their mean where all say the same."""
    axis = _channels(values.shape)
    if values.ndim > 3:
        raise InputError(f"a row of {list(values.shape)} has no picture", hint="Take the arrays themselves")
    if axis is None:
        return values
    flat: Floats = values.mean(axis=axis) if mean else values.sum(axis=axis)
    return flat


def _picture(row: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """What went in, as colours: stretched to 0 to 255, unless it is bytes."""
    axis = _channels(row.shape)
    values = row.astype(np.float64)
    if axis is not None:
        values = np.moveaxis(values, axis, -1)
        if values.shape[-1] not in (1, 3, 4):
            values = values.mean(axis=-1, keepdims=True)
    else:
        values = values[..., None]
    if row.dtype != np.uint8:
        values = np.nan_to_num(values)
        low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
        values = (values - low) / (high - low) * 255 if high > low else np.full_like(values, 128)
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values, 3, axis=-1)
    return np.asarray(colours.reshape(*shape, 3).round(), np.uint8)


def _numpy(array: Any) -> Floats:
    plain = array.detach().cpu().numpy() if hasattr(array, "detach") else array
    return np.asarray(plain, np.float64)
