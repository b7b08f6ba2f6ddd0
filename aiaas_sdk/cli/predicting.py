"""`aiaas predict`: rows through a model, with a bar where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import InputError
from aiaas_sdk.mapping import length
from aiaas_sdk.model import Model
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import matches

__all__ = ["Answer", "predict"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of all rows, or the best classes of each, and who answered."""

    outputs: Mapping[str, npt.NDArray[Any]]
    top: list[list[tuple[str, float]]] | None
    model: str
    version: str | None
    backend: str
    rows: int | None


def predict(
    model: Model[Any, Any], inputs: Mapping[str, Any], *, batch_size: int | None = None, top: int | None = None
) -> Answer:
    """Run the model: row by row in batches where its first axis is rows, else whole.

    Args:
        batch_size: rows in a call; None for what the settings or the model say.
        top: how many best classes of each row to find.
    """
    info = model.info()
    rows = _rows(inputs, info)
    if not rows:
        answer = model.predict(inputs)
        return _answer([answer], dict(answer), answer.top(top) if top else None, answer.usage.rows)
    with _bar(rows) as step:
        answers = []
        for answer in model.map(inputs, batch_size=batch_size):
            answers.append(answer)
            step()
    outputs = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    return _answer(answers, outputs, [answer.top(top)[0] for answer in answers] if top else None, rows)


def _rows(inputs: Mapping[str, Any], info: ModelInfo) -> int | None:
    """How many rows `map` can be given; None or 0 where the model must be called whole."""
    if not info.rows_free:
        return None
    sizes = {name: length(value) for name, value in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"the inputs have different numbers of rows: {sizes}")
    fitting = all(matches(spec, np.shape(inputs[spec.name])) for spec in info.inputs if spec.name in inputs)
    # what doesn't fit goes to predict, whose message is of the whole array
    return next(iter(sizes.values()), None) if fitting and len(sizes) == len(info.inputs) else None


def _answer(answers: list[Prediction], outputs: Mapping[str, Any], top: Any, rows: int | None) -> Answer:
    last = answers[-1]
    return Answer(outputs, top, last.model, last.version, last.backend, rows)


@contextmanager
def _bar(rows: int) -> Iterator[Any]:
    """A bar on stderr, if that is a terminal; it is gone when all is done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=rows)
        yield lambda: progress.advance(task)
