"""Asking for a batch, as steps: what both faces perform, so that it is written once.

The steps of a batch are a generator. It yields what it needs (`Ask`, `Sleep`, `Run`) and is sent the outcome; a failure
is thrown into it. Unlike a flow it goes over several calls, each with a deadline of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from aiaas_sdk.flow import Run, Sleep
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Tensor

__all__ = ["Answers", "Ask", "Steps", "aperform", "perform"]

T = TypeVar("T")


@dataclass(slots=True)
class Ask:
    """One call of `predict`: gives its `Prediction`."""

    inputs: Mapping[str, Tensor]


@dataclass(slots=True)
class Answers:
    """What came of consecutive rows: `each` a Prediction of one row, made as it is taken, or that row's AiaasError.

    `sound`: there is no error among them. `kept`: they come from a checkpoint.
    """

    rows: range
    each: Iterable[Any]
    sound: bool = True
    kept: bool = False


Steps: TypeAlias = Generator[Ask | Sleep | Run, Any, T]


def perform(steps: Steps[T], ask: Callable[[Mapping[str, Tensor]], Prediction]) -> T:
    """Carry out steps in this thread."""
    step = steps.send
    outcome: Any = None
    try:
        while True:
            needed = step(outcome)
            try:
                outcome, step = _performed(needed, ask), steps.send
            except BaseException as error:
                outcome, step = error, steps.throw
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _performed(needed: Ask | Sleep | Run, ask: Callable[[Mapping[str, Tensor]], Prediction]) -> Any:
    if type(needed) is Ask:
        return ask(needed.inputs)
    if type(needed) is Sleep:
        return time.sleep(needed.seconds)
    assert type(needed) is Run
    return needed.work()


async def aperform(steps: Steps[T], ask: Callable[[Mapping[str, Tensor]], Awaitable[Prediction]]) -> T:
    """Carry out steps in this task; a cancellation goes into them and comes out again."""
    step = steps.send
    outcome: Any = None
    try:
        while True:
            needed = step(outcome)
            try:
                outcome, step = await _aperformed(needed, ask), steps.send
            except BaseException as error:
                outcome, step = error, steps.throw
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _aperformed(needed: Ask | Sleep | Run, ask: Callable[[Mapping[str, Tensor]], Awaitable[Prediction]]) -> Any:
    """What to await; no coroutine of its own, which would be one more for each call."""
    if type(needed) is Ask:
        return ask(needed.inputs)
    if type(needed) is Sleep:
        return asyncio.sleep(needed.seconds)
    assert type(needed) is Run
    return asyncio.get_running_loop().run_in_executor(None, needed.work)
