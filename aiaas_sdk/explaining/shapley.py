"""SHAP values of a table: how the features share what the answer differs from that for zeros.

Shapley 1953, "A Value for n-Person Games"; Lundberg and Lee 2017, "A Unified Approach to Interpreting Model
Predictions", with zeros for the features that are away. Up to 10 features each set of them is asked about, and the
values are exact. For more, orders of the features are drawn by a fixed seed, each with its reverse (Mitchell et al.
2022, "Sampling Permutations for Shapley Value Estimation", antithetic sampling); they add up exactly all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aiaas_sdk.explaining.scoring import Rows, Scorer, Scores
from aiaas_sdk.flow import Flow

__all__ = ["shapley"]

EXACT = 10
"""Features up to which all 2^n sets are asked about."""
ASKED = 2048
"""Sets of features that are asked about for a row where there are more, or two orders where that is more still."""
SEED = 0

Sets = npt.NDArray[np.bool_]
"""(sets, features): which are there."""


def shapley(scorer: Scorer, rows: Rows, targets: Sequence[int] | None) -> Flow[tuple[dict[str, Scores], float]]:
    """The values for each input, and by how much the worst row's don't add up to f(x) - f(0)."""
    changed = {name: rows[name] for name in scorer.changeable(rows)}
    columns = [(name, column) for name, array in changed.items() for column in range(_width(array))]
    sets, orders = _all_sets(len(columns)) if len(columns) <= EXACT else _drawn(len(columns))

    def leave_out(batch: Rows, row: int, number: int) -> None:
        for place in np.flatnonzero(~sets[number]).tolist():
            name, column = columns[place]
            batch[name][(row, column) if batch[name].ndim == 2 else (row,)] = 0

    worth = yield from scorer.changed(rows, targets, len(sets), leave_out)
    values = _exact(worth, len(columns)) if orders is None else _averaged(worth, orders)
    whole, nothing = (worth[:, -1], worth[:, 0])
    error = float(np.abs(values.sum(axis=1) - (whole - nothing)).max(initial=0.0))
    nothing_to_say = {name: np.zeros(array.shape) for name, array in rows.items()}
    return {**nothing_to_say, **_parted(values, changed)}, error


def _width(array: npt.NDArray[np.generic]) -> int:
    return 1 if array.ndim == 1 else array.shape[1]


def _parted(values: Scores, rows: Rows) -> dict[str, Scores]:
    found, begin = {}, 0
    for name, array in rows.items():
        width = _width(array)
        found[name] = values[:, begin : begin + width].reshape(array.shape)
        begin += width
    return found


# ---------------------------------------------------------------- exact
def _all_sets(count: int) -> tuple[Sets, None]:
    """Each set at the place that its bits spell."""
    return (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(bool), None


def _exact(worth: Scores, count: int) -> Scores:
    """phi_i: the sum over the sets S without i of |S|! (n - |S| - 1)! / n! (v(S and i) - v(S))."""
    places = np.arange(1 << count)
    sizes = (places[:, None] >> np.arange(count) & 1).sum(axis=1)
    weights = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.zeros((len(worth), count))
    for feature in range(count):
        without = places[places >> feature & 1 == 0]
        gained = worth[:, without | 1 << feature] - worth[:, without]
        values[:, feature] = gained @ weights[sizes[without]]
    return values


# ---------------------------------------------------------------- drawn
def _drawn(count: int) -> tuple[Sets, npt.NDArray[np.intp]]:
    """Orders (orders, features), and the sets that grow along them: none, then each order's between, then all."""
    pairs = max(1, ASKED // (2 * (count - 1)))
    random = np.random.default_rng(SEED)
    orders = np.array([order for _ in range(pairs) for order in _both_ways(random.permutation(count))])
    ranks = np.argsort(orders, axis=1)
    between = ranks[:, None, :] < np.arange(1, count)[None, :, None]
    ends = np.zeros((1, count), bool)
    return np.concatenate([ends, between.reshape(-1, count), ~ends]), orders


def _both_ways(order: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return order, order[::-1]


def _averaged(worth: Scores, orders: npt.NDArray[np.intp]) -> Scores:
    """The mean over the orders of what each feature adds to those before it."""
    count = orders.shape[1]
    between = worth[:, 1:-1].reshape(len(worth), len(orders), count - 1)
    first, last = (np.broadcast_to(worth[:, end, None, None], (*between.shape[:2], 1)) for end in (0, -1))
    gained = np.diff(np.concatenate([first, between, last], axis=2), axis=2)
    values = np.zeros((len(worth), count))
    for number, order in enumerate(orders):
        values[:, order] += gained[:, number]
    return values / len(orders)
