"""Batches: any number of rows, none of which knows of the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiaas_sdk.testing.conformance.bench import Bench, rows_of
from aiaas_sdk.testing.conformance.checks import agree, family
from aiaas_sdk.testing.conformance.checks import check as promise


@family("{}_rows_are_right", (1, 7, 9, 17, 33, 64), "predict")
def so_many_rows(bench: Bench, rows: int) -> None:
    """A batch of {} gives the right numbers, or those that its rows give alone."""
    bench.needs_rows()
    inputs = bench.question(rows)
    came = bench.ask(inputs)
    if bench.subject.reference is not None:
        bench.same(came, bench.right(inputs), f"of {rows} rows")
        return
    for row in {0, rows // 2, rows - 1}:
        alone = bench.ask(rows_of(inputs, slice(row, row + 1)))
        bench.same(rows_of(came, slice(row, row + 1)), alone, f"row {row} of {rows}, against itself alone")


@promise("predict")
def a_thousand_rows_are_taken(bench: Bench) -> None:
    """A large batch gives as many rows, or is refused as too large before it is tried."""
    bench.needs_rows()
    inputs = bench.question(1000)
    came = bench.ask(inputs)
    for name, array in came.items():
        agree(len(array) == 1000, f"1000 rows in, and {len(array)} rows of {name!r} out")
    some = [0, 499, 999]
    bench.same(rows_of(came, some), bench.ask(rows_of(inputs, some)), "rows 0, 499 and 999 of 1000")


@promise("predict")
def no_rows_give_no_rows(bench: Bench) -> None:
    """An empty batch is a batch: outputs have no rows, and the datatype that they always have."""
    bench.needs_rows()
    some, none = bench.ask(bench.question(2)), bench.ask(bench.question(0))
    for name, array in some.items():
        agree(name in none, f"no rows in, and the output {name!r} is missing")
        came = none[name]
        agree(came.shape[0] == 0, f"no rows in, and {came.shape[0]} rows of {name!r} out")
        agree(came.dtype == array.dtype, f"without rows {name!r} is {came.dtype}, else {array.dtype}")


@promise("predict")
def rows_keep_their_order(bench: Bench) -> None:
    """Rows in another order give the same answers in that order."""
    bench.needs_rows()
    inputs, order = bench.question(11), [3, 0, 4, 2, 1, 10, 8, 9, 5, 7, 6]
    bench.same(bench.ask(rows_of(inputs, order)), rows_of(bench.ask(inputs), order), "in another order")


@promise("predict")
def rows_do_not_mix(bench: Bench) -> None:
    """What stands beside a row changes nothing in its answer."""
    bench.needs_rows()
    inputs, others = bench.question(13), bench.question(13, also="others")
    mixed = {name: np.concatenate([inputs[name][:1], others[name][1:]]) for name in inputs}
    came = rows_of(bench.ask(mixed), slice(0, 1))
    bench.same(came, rows_of(bench.ask(inputs), slice(0, 1)), "beside other rows, row 0")


@promise("predict")
def as_many_rows_come_as_went(bench: Bench) -> None:
    """Each output has as many rows as the inputs."""
    bench.needs_rows()
    for name, array in bench.ask(bench.question(6)).items():
        agree(array.shape[:1] == (6,), f"6 rows in, and {name!r} has the shape {list(array.shape)}")


@promise("predict")
def map_gives_rows_in_order(bench: Bench) -> None:
    """`map` gives what `predict` gives, row by row, whatever the batches and however many are in flight."""
    bench.needs_rows()
    inputs = bench.question(12)
    given = list(bench.model.map(inputs, batch_size=5, concurrency=2))
    _rows_are(bench, given, bench.ask(inputs))


@promise("predict")
def map_awaited_gives_rows_in_order(bench: Bench) -> None:
    """The same, awaited."""
    bench.needs_rows()
    inputs = bench.question(12)

    async def mapped() -> list[Any]:
        return [row async for row in bench.awaited.map(inputs, batch_size=6, concurrency=3)]

    _rows_are(bench, bench.wait(mapped()), bench.ask(inputs))


def _rows_are(bench: Bench, given: list[Any], whole: Any) -> None:
    agree(len(given) == 12, f"12 rows were mapped, and {len(given)} answers came")
    for index, row in enumerate(given):
        bench.same(row, {name: array[index] for name, array in whole.items()}, f"row {index} of map")
