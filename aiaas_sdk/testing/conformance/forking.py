"""Fork: a child process may use a model that its parent loaded or opened."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks

LIMIT = 20.0
"""Seconds that a child may take."""


def _child(ask: Callable[[], Any], right: Any) -> str:
    """What became of asking in a child process: nothing to say, or what is wrong."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: that is the question
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, _answered(ask, right).encode()[:4000])
        finally:
            os._exit(0)  # nothing of the parent's is run here
    os.close(writing)
    with open(reading, "rb") as pipe:
        if not _ended(child):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"it wasn't answered in {LIMIT:.0f} s"
        return pipe.read().decode(errors="replace") or "the child died"


def _answered(ask: Callable[[], Any], right: Any) -> str:
    try:
        came = ask()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    same = all(np.array_equal(np.asarray(came[name]), right[name]) for name in right)
    return "right" if same else "the answer is another one"


def _ended(child: int) -> bool:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    return False


def _needs_fork() -> None:
    lacks(not hasattr(os, "fork"), "this system has no fork")


@check("predict")
def a_child_can_open_the_model(bench: Bench) -> None:
    """A model that was loaded and not opened works in a child process."""
    _needs_fork()
    inputs, model = bench.question(), bench.fresh()
    right = {name: np.asarray(array) for name, array in bench.ask(inputs).items()}
    told = _child(lambda: model.predict(inputs), right)
    agree(told == "right", f"in a child process: {told}")


@check("predict")
def a_child_can_use_an_open_model(bench: Bench) -> None:
    """A model that was used works in a child process."""
    _needs_fork()
    inputs, model = bench.question(), bench.fresh()
    right = {name: np.asarray(array) for name, array in model.predict(inputs).items()}
    told = _child(lambda: model.predict(inputs), right)
    agree(told == "right", f"in a child process: {told}")


@check("predict")
def a_child_can_use_a_model_with_a_deadline(bench: Bench) -> None:
    """A model whose worker thread ran works in a child process, which hasn't that thread."""
    _needs_fork()
    inputs, model = bench.question(), bench.fresh(timeout=LIMIT / 2)
    right = {name: np.asarray(array) for name, array in model.predict(inputs).items()}
    told = _child(lambda: model.predict(inputs), right)
    agree(told == "right", f"in a child process: {told}")


@check("predict")
def a_child_leaves_its_parent_alone(bench: Bench) -> None:
    """After a child used and left the model, the parent goes on with it."""
    _needs_fork()
    inputs, model = bench.question(), bench.fresh()
    first = model.predict(inputs)
    right = {name: np.asarray(array) for name, array in first.items()}
    _child(lambda: model.predict(inputs), right)
    bench.same(model.predict(inputs), first, "after a child used the model")
