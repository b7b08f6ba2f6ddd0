"""Who answered, and what it took."""

from __future__ import annotations

import pickle
import time

import numpy as np

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check


@check("predict")
def answers_name_their_model(bench: Bench) -> None:
    """`.model` is the name that info() has."""
    came = bench.ask(bench.question()).model
    agree(came == bench.info.name, f".model is {came!r}, and info().name is {bench.info.name!r}")


@check("predict")
def answers_name_their_version(bench: Bench) -> None:
    """`.version` is text, or None where the model has none."""
    came = bench.ask(bench.question()).version
    agree(came is None or type(came) is str, f".version is {came!r}")


@check("predict")
def answers_name_their_backend(bench: Bench) -> None:
    """`.backend` is the scheme of the backend that answered."""
    came = bench.ask(bench.question()).backend
    agree(type(came) is str and bool(came), f".backend is {came!r}; give the class a `scheme`")


@check("predict")
def answers_count_their_rows(bench: Bench) -> None:
    """`.usage.rows` is the number of rows."""
    bench.needs_rows()
    came = bench.ask(bench.question(5)).usage.rows
    agree(came == 5, f"5 rows were asked, and .usage.rows is {came!r}")


@check("predict")
def answers_tell_their_time(bench: Bench) -> None:
    """`.timing` holds seconds: none below 0, and none above what passed."""
    begun = time.perf_counter()
    timing = bench.ask(bench.question()).timing
    passed = time.perf_counter() - begun
    for name in ("total", "queue", "compute", "network"):
        seconds = getattr(timing, name)
        agree(seconds is None or 0 <= seconds <= passed, f".timing.{name} is {seconds!r} of {passed:.6f} s that passed")


@check("predict")
def answers_count_their_attempts(bench: Bench) -> None:
    """`.attempts` is the number of requests sent, 0 where none was needed."""
    came = bench.ask(bench.question()).attempts
    agree(type(came) is int and came >= 0, f".attempts is {came!r}")


@check("predict")
def answers_can_be_pickled(bench: Bench) -> None:
    """An answer can be sent to another process, and is the same there."""
    came = bench.ask(bench.question())
    try:
        again = pickle.loads(pickle.dumps(came))
    except Exception as error:
        agree(False, f"the answer can't be pickled: {error}")
    else:
        for name, array in came.items():
            agree(bool(np.array_equal(again[name], array)), f"{name!r} comes out of pickle as something else")
