"""One forward pass for the rows of several requests: joined, run, and parted again. It runs in the model's thread."""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any, TypeAlias

import numpy as np

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.near import Near
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Tensor

__all__ = ["Key", "Member", "UnequalRowsError", "answers"]

Key: TypeAlias = tuple[Any, ...]
"""What requests must have in common to share a pass."""


class UnequalRowsError(ProtocolError):
    """An output hasn't a row for each row that went in: nobody can tell whose is whose."""


class Member:
    """A request that waits for a pass, or is in one.

    Attributes:
        inputs, outputs: as it gave them.
        rows: that it has; 1 where that can't be told.
        key: who may share its pass; None for nobody.
        answer: a future of the event loop: the Prediction, or an error.
        asked: when it came (`time.perf_counter`).
        running: it has been taken for a pass.
        turn: when it is due among those of other callers; see `Turns`.
        context: that it came in: its trace. A shared pass belongs to that of its first member.
    """

    __slots__ = ("answer", "asked", "context", "inputs", "key", "outputs", "rows", "running", "turn")

    def __init__(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str] | None, answer: Future[Prediction], shared: bool
    ) -> None:
        self.inputs, self.outputs, self.answer = inputs, outputs, answer
        self.asked, self.running, self.turn = time.perf_counter(), False, 0
        self.context = copy_context()
        self.rows, self.key = _like(inputs, outputs) if shared else (1, None)


def _like(inputs: Mapping[str, Tensor], outputs: Sequence[str] | None) -> tuple[int, Key | None]:
    """The rows that all inputs have, and the key; (1, None) where one has none or another number."""
    rows, alike = None, []
    for name, tensor in inputs.items():
        array = tensor.array
        shape = array.shape
        if not shape or (rows is not None and rows != shape[0]) or type(array) is not np.ndarray:
            return 1, None
        rows = shape[0]
        alike.append((name, tensor.datatype, shape[1:]))
    if rows is None:
        return 1, None
    alike.sort()
    return rows, (None if outputs is None else tuple(outputs), *alike)


def answers(here: Near, members: Sequence[Member]) -> list[Prediction]:
    """The members' answers from one pass. One alone is run as it is; nothing of it is copied.

    Raises:
        UnequalRowsError: the answer can't be parted.
        ...: whatever the model raises.
    """
    taken = time.perf_counter()
    first = members[0]
    if len(members) == 1:
        answer = here.predict(first.inputs, first.outputs)
        answer._call.queue = taken - first.asked + (answer._call.queue or 0.0)
        answer._call.total += taken - first.asked
        return [answer]
    whole = here.predict({name: _joined(name, members) for name in first.inputs}, first.outputs)
    _check_rows(whole, sum(member.rows for member in members))
    outputs = [(name, tensor.datatype, tensor.array, whole[name]) for name, tensor in whole.tensors.items()]
    found, begin = [], 0
    for member in members:
        call = _part_of(whole._call, member.rows, taken - member.asked)
        tensors, arrays = _cut(outputs, begin, begin + member.rows)
        found.append(Prediction(call, arrays, tensors, whole.labels))
        begin += member.rows
    return found


def _joined(name: str, members: Sequence[Member]) -> Tensor:
    tensors = [member.inputs[name] for member in members]
    return Tensor(tensors[0].datatype, np.concatenate([tensor.array for tensor in tensors]))


def _check_rows(whole: Prediction, rows: int) -> None:
    for name, tensor in whole.tensors.items():
        if tensor.array.shape[:1] != (rows,):
            raise UnequalRowsError(
                f"{whole.model} gave {name!r} in the shape {list(tensor.array.shape)} for {rows} rows"
            )


def _cut(
    outputs: Sequence[tuple[str, str, Any, Any]], begin: int, end: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Some rows of an answer, as views: as tensors, and as the arrays that the caller is given."""
    tensors, arrays = {}, {}
    for name, datatype, array, given in outputs:
        rows = array[begin:end]
        tensors[name] = Tensor(datatype, rows)
        arrays[name] = rows if given is array else given[begin:end]
    return tensors, arrays


def _part_of(of: Call, rows: int, waited: float) -> Call:
    """A member's call. The time of the whole pass is the time of each of its members."""
    return Call(
        of.verb,
        model=of.model,
        version=of.version,
        backend=of.backend,
        total=waited + of.total,
        queue=waited + (of.queue or 0.0),
        compute=of.compute,
        rows=rows,
    )
