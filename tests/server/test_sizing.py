"""Passes get as large as a row is quickest."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from aiaas_sdk.server.sizing import Sizing


def run(sizing: Sizing, seconds: Callable[[int], float], waiting: int, passes: int = 600) -> list[int]:
    """The rows of the last passes where so many rows always wait."""
    noise = random.Random(0)
    taken = []
    for _ in range(passes):
        rows = min(sizing.limit, waiting)
        taken.append(rows)
        sizing.passed(rows, seconds(rows) * noise.uniform(0.95, 1.05))
    return taken[-190:]


def mostly(taken: list[int]) -> int:
    """The size that nine in ten passes have: a few are for trying others."""
    size = max(set(taken), key=taken.count)
    assert taken.count(size) >= 0.9 * len(taken)
    return size


def cached(rows: int) -> float:
    """A model whose rows take twice as long where more than 16 are in a pass."""
    return rows * (1e-4 if rows <= 16 else 2e-4) + 1e-5


def test_a_model_that_gains_by_every_row_has_full_passes() -> None:
    assert mostly(run(Sizing(64), lambda rows: 1e-3 + 1e-5 * rows, waiting=64)) == 64


def test_one_whose_rows_take_as_long_in_any_pass_has_full_passes() -> None:
    assert mostly(run(Sizing(64), lambda rows: 1e-4 * rows, waiting=64)) == 64


@pytest.mark.parametrize("waiting", [30, 64, 200])
def test_one_that_leaves_the_caches_has_smaller_ones(waiting: int) -> None:
    sizing = Sizing(64)
    for rows in (1, 2, 3, 5, 9, 12, 16) * 3:  # as they come while the load grows
        sizing.passed(rows, cached(rows))
    assert mostly(run(sizing, cached, waiting)) == 16


def test_small_passes_are_found_where_the_load_was_high_from_the_beginning() -> None:
    sizing = Sizing(64)
    taken = run(sizing, cached, waiting=64, passes=3000)
    assert mostly(taken) == 16


def test_larger_passes_are_tried_again() -> None:
    sizing = Sizing(64)
    for rows in (1, 2, 4, 8, 16) * 3:
        sizing.passed(rows, cached(rows))
    run(sizing, cached, waiting=64)
    assert sizing.limit <= 32
    taken = run(sizing, lambda rows: 1e-4 * rows, waiting=64, passes=6000)
    assert mostly(taken) == 64


def test_a_limit_that_is_no_power_of_two_is_kept() -> None:
    assert mostly(run(Sizing(50), lambda rows: 1e-3 + 1e-5 * rows, waiting=64)) == 50
    assert max(run(Sizing(50), cached, waiting=64, passes=3000)) <= 50
