"""Right numbers, for the model's own inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, family, lacks
from aiaas_sdk.testing.conformance.subject import Arrays

_MADE: dict[str, Callable[[Any], Any]] = {
    "drawn": lambda array: array,
    "zero": np.zeros_like,
    "one": np.ones_like,
    "negative": lambda array: -np.abs(array) - 1,
    "large": lambda array: array * array.dtype.type(2.0**90),
    "small": lambda array: array * array.dtype.type(2.0**-90),
    "fractional": lambda array: array / array.dtype.type(3),
}


@family("{}_numbers_are_right", _MADE, "predict")
def numbers(bench: Bench, kind: str) -> None:
    """Inputs that are {} numbers give what the reference gives."""
    bench.needs_reference()
    lacks(bench.subject.inputs is not None, "the subject makes its own inputs")
    made = {}
    for name, array in bench.question(10).items():
        wide = array.dtype.kind == "f" and array.dtype.itemsize >= 4
        bf16 = any(spec.name == name and spec.datatype == "BF16" for spec in bench.info.inputs)
        made[name] = _MADE[kind](array) if wide and not bf16 else array
        if made[name] is not array:
            continue
        lacks(kind != "drawn" and len(bench.info.inputs) == 1, "the model's input is neither FP32 nor FP64")
    came: Arrays = bench.ask(made)
    right = bench.right(made)
    if kind == "small":  # or the absolute tolerance would take them all for zero
        came, right = ({name: _raised(array) for name, array in arrays.items()} for arrays in (came, right))
    bench.same(came, right, f"of {kind} numbers")


def _raised(array: Any) -> Any:
    array = np.asarray(array)
    return array.astype(np.float64) * 2.0**90 if array.dtype.kind == "f" else array


@check("predict")
def the_same_question_has_the_same_answer(bench: Bench) -> None:
    """The same inputs give the same outputs, to the bit."""
    inputs = bench.question(15)
    first, *others = [bench.ask(inputs) for _ in range(4)]
    for again in others:
        for name, array in first.items():
            same = array.dtype.kind == "O" or array.tobytes() == np.asarray(again[name]).tobytes()
            agree(same and np.shape(again[name]) == array.shape, f"asked again, {name!r} is another one")
