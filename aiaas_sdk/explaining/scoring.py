"""The number that is explained, for many inputs: batches of `predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Flow
from aiaas_sdk.records.explanation import Question
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, Kind, Tensor, storage

__all__ = ["Rows", "Scorer", "Scores", "attributed", "is_mask", "rows_of"]

Scores = npt.NDArray[np.float64]
Rows = dict[str, npt.NDArray[Any]]
"""Rows of the inputs that have any, in storage form; the first axis is rows."""
Predict = Callable[[Mapping[str, Tensor], Sequence[str]], Flow[Mapping[str, Tensor]]]
Change = Callable[[Rows, int, int], None]
"""Changes a row in place: the rows, which of them, and the number of the change."""


def rows_of(question: Question) -> Rows:
    axes = {name: question.axis(name) for name in question.inputs}
    return {
        name: np.moveaxis(storage(tensor), axis, 0)
        for name, tensor in question.inputs.items()
        if (axis := axes[name]) is not None
    }


def attributed(found: Mapping[str, Scores], question: Question) -> dict[str, Tensor]:
    """Attributions to rows as they travel, of their inputs' shapes; zeros for what all rows share."""
    given = {}
    for name, tensor in question.inputs.items():
        axis = question.axis(name)
        array = np.zeros(tensor.shape) if axis is None else np.moveaxis(found[name], 0, axis)
        datatype = "FP64" if tensor.datatype == "FP64" else "FP32"
        given[name] = Tensor(datatype, np.ascontiguousarray(array, DATATYPES[datatype].dtype))
    return given


def is_mask(name: str, datatype: str) -> bool:
    """Whether an input says which of the others' elements there are, which is nothing to leave out."""
    return name.endswith("mask") and not datatype.startswith(("FP", "BF"))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Asks a model.

    Attributes:
        predict: its verb; output: the one that is looked at.
        question: whose inputs are asked about in other forms.
        limit: rows in a call.
        next_token: of an answer for each token, (rows, tokens, logits), log-probabilities after the last are looked at.
    """

    predict: Predict
    output: TensorSpec
    question: Question
    limit: int
    next_token: bool = False

    def changeable(self, rows: Rows) -> list[str]:
        """The inputs that parts can be left out of: numbers."""
        kinds = {name: self.question.inputs[name].datatype for name in rows}
        numbers = [name for name in rows if kinds[name] not in ("BYTES", "BOOL")]
        return [name for name in numbers if not is_mask(name, kinds[name])] or numbers

    def outputs(self, rows: Rows) -> Flow[Scores]:
        """The whole output for each row."""
        count = len(next(iter(rows.values())))
        found = []
        for begin in range(0, count, self.limit):
            part = {name: array[begin : begin + self.limit] for name, array in rows.items()}
            answer = yield from self.predict(self._placed(part), [self.output.name])
            scores = np.asarray(Kind.numpy().give(answer[self.output.name]), np.float64)
            _check(scores, len(next(iter(part.values()))), self.output.name)
            found.append(self._last(scores, part) if self.next_token and scores.ndim == 3 else scores)
        return np.concatenate(found) if found else np.zeros((0, 1))

    def _placed(self, rows: Rows) -> dict[str, Tensor]:
        """As the model takes them, with what all rows share."""
        given = dict(self.question.inputs)
        for name, array in rows.items():
            axis = self.question.axis(name)
            given[name] = Tensor(given[name].datatype, np.ascontiguousarray(np.moveaxis(array, 0, axis or 0)))
        return given

    def _last(self, scores: Scores, rows: Rows) -> Scores:
        masks = [array for name, array in rows.items() if is_mask(name, self.question.inputs[name].datatype)]
        last = masks[0].sum(1).astype(int) - 1 if masks else np.full(len(scores), scores.shape[1] - 1)
        found: Scores = scores[np.arange(len(scores)), last]
        found = found - found.max(-1, keepdims=True)  # logits say nothing alone: all of them may grow together
        return found - np.log(np.exp(found).sum(-1, keepdims=True))  # type: ignore[no-any-return]

    def scores(self, rows: Rows, targets: Sequence[int] | None) -> Flow[Scores]:
        """The number that is explained, for each row."""
        return picked((yield from self.outputs(rows)), targets)

    def changed(self, rows: Rows, targets: Sequence[int] | None, changes: int, change: Change) -> Flow[Scores]:
        """That number for each row under each change: (rows, changes). No more than a batch of them is held at once."""
        count = len(next(iter(rows.values())))
        found = []
        for pairs in _batches(count * changes, self.limit):
            places = pairs // changes
            batch = {name: array[places] for name, array in rows.items()}  # a copy
            for row, number in enumerate((pairs % changes).tolist()):
                change(batch, row, number)
            wanted = None if targets is None else [targets[place] for place in places.tolist()]
            found.append((yield from self.scores(batch, wanted)))
        return (np.concatenate(found) if found else np.zeros(0)).reshape(count, changes)


def _batches(count: int, limit: int) -> Iterator[npt.NDArray[np.intp]]:
    for begin in range(0, count, limit):
        yield np.arange(begin, min(begin + limit, count))


def _check(scores: Scores, rows: int, name: str) -> None:
    if scores.ndim == 0 or len(scores) != rows:
        raise InputError(
            f"the output {name!r} is {list(scores.shape)} for {rows} rows of the inputs, so it can't be explained",
            hint="Explain an output whose first axis is those rows: target='NAME'",
        )


def picked(outputs: Scores, targets: Sequence[int] | None) -> Scores:
    """Of each row the number of its target; the only one where there are no targets."""
    if targets is None:
        return outputs.reshape(len(outputs))
    return outputs.reshape(len(outputs), -1)[np.arange(len(outputs)), list(targets)]
