"""Occlusion: what the answer loses where a part of the input is set to zero.

Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks". Windows slide by half their width; an
element has the mean of what the windows over it cost. A table's columns are left out one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aiaas_sdk.explaining.scoring import Rows, Scorer, Scores
from aiaas_sdk.flow import Flow

__all__ = ["occlude", "spots_of"]

ACROSS = 7
"""Windows side by side along an axis, without those in between."""
COLUMNS = 256
"""Columns that are left out one by one; more are left out in groups."""
_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of one input's row."""

    name: str
    place: tuple[slice, ...]


def spots_of(name: str, shape: Sequence[int]) -> list[Spot]:
    """The parts of a row of this shape that are left out, each in its turn."""
    if not shape:
        return [Spot(name, ())]
    if len(shape) == 1:
        width = -(-shape[0] // COLUMNS)
        return [Spot(name, (slice(begin, begin + width),)) for begin in range(0, shape[0], width or 1)]
    whole = [slice(None)] * len(shape)
    found = []
    axes = _axes(shape)
    for cut in itertools.product(*(_windows(shape[axis]) for axis in axes)):
        place = list(whole)
        for axis, window in zip(axes, cut, strict=True):
            place[axis] = window
        found.append(Spot(name, tuple(place)))
    return found


def _axes(shape: Sequence[int]) -> tuple[int, int]:
    """The two axes of a picture: the last two, or the first two where the last one is channels."""
    channels_last = len(shape) == 3 and shape[2] <= _MOST_CHANNELS < shape[0]
    return (0, 1) if channels_last else (len(shape) - 2, len(shape) - 1)


def _windows(size: int) -> list[slice]:
    width = -(-size // ACROSS)
    step = max(1, width // 2)
    begins = range(0, max(1, size - width + step), step)
    return [slice(begin, min(begin + width, size)) for begin in begins]


def occlude(scorer: Scorer, rows: Rows, targets: Sequence[int] | None, full: Scores) -> Flow[dict[str, Scores]]:
    """The attributions to each input.

    Args:
        full: the number that is explained, for the rows as they are.
    """
    spots = [spot for name in scorer.changeable(rows) for spot in spots_of(name, rows[name].shape[1:])]

    def leave_out(batch: Rows, row: int, number: int) -> None:
        batch[spots[number].name][row : row + 1][(slice(None), *spots[number].place)] = 0

    left = yield from scorer.changed(rows, targets, len(spots), leave_out)
    return _spread(rows, spots, full[:, None] - left)


def _spread(rows: Mapping[str, np.ndarray], spots: Sequence[Spot], costs: Scores) -> dict[str, Scores]:
    sums = {name: np.zeros(array.shape) for name, array in rows.items()}
    counts = {name: np.zeros(array.shape[1:]) for name, array in rows.items()}
    for number, spot in enumerate(spots):
        ones = (1,) * len(spot.place)
        sums[spot.name][(slice(None), *spot.place)] += costs[:, number].reshape(-1, *ones)
        counts[spot.name][spot.place] += 1
    return {name: sums[name] / np.maximum(counts[name], 1) for name in rows}
