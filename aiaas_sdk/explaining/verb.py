"""`explain` as a flow: what is asked, who answers, and the answer checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.explaining import methods, targets
from aiaas_sdk.explaining.occlusion import occlude
from aiaas_sdk.explaining.scoring import Scorer, attributed, picked, rows_of
from aiaas_sdk.explaining.shapley import shapley
from aiaas_sdk.flow import Flow
from aiaas_sdk.language import Language
from aiaas_sdk.mapping import given, records_in, size
from aiaas_sdk.records.call import Call, Deadline
from aiaas_sdk.records.explanation import (
    AUTO,
    METHODS,
    PERTURBING,
    Explained,
    Explanation,
    Question,
    axis_of_rows,
    names_of,
)
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Kind, Tensor, storage, take

__all__ = ["Explaining"]

TOKENS = "tokens"
"""The name of the one array of an explanation of texts."""


class Explaining(Language):
    """What both faces share of `explain`."""

    def _explained(self, inputs: Any, target: Any, method: str, deadline: Deadline | None) -> Flow[Explanation]:
        info = self._engine.info
        assert info is not None  # the face has opened it
        if "explain" not in info.verbs:
            raise self._unsupported("explain")
        methods.check(method)
        question = self._question(inputs, target, method, info)
        call = self._call("explain", deadline)
        call.rows = question.rows
        found: Explained = yield from self._timed(call, self._answering(call, question, info, deadline))
        self._noted(call, question.rows, None, None)
        return self._explanation(call, question, found, info, Kind.of(inputs if type(inputs) is not list else ()))

    def _question(self, inputs: Any, target: Any, method: str, info: ModelInfo) -> Question:
        if (texts := _texts(inputs, info)) is not None:
            return Question({}, texts, targets.settled(target, len(texts), info, texts=True), method)
        if (bound := self._records()) is not None and (records := records_in(inputs, bound.input)) is not None:
            inputs = bound.encode(records, 0)
        named = given(inputs, info)
        tensors = {spec.name: take(named[spec.name], spec, where=info.name) for spec in info.inputs}
        axes = {spec.name: axis_of_rows(spec) for spec in info.inputs}
        rows = {tensor.shape[axis] for name, tensor in tensors.items() if (axis := axes[name]) is not None}
        if len(rows) != 1:
            raise InputError(f"the inputs of {info.name} have different numbers of rows: {sorted(rows)}")
        return Question(tensors, None, targets.settled(target, rows.pop(), info), method, axes)

    # ------------------------------------------------------------ who answers
    def _answering(self, call: Call, question: Question, info: ModelInfo, deadline: Deadline | None) -> Flow[Explained]:
        backend = self._engine.backend
        if backend.lacks(AUTO) is None:
            return (yield from self._in_parts(call, question))
        question = replace(question, method=methods.chosen(question, info, partial(_lacks, backend, question)))
        if question.method in PERTURBING and question.texts is None:
            return (yield from self._perturbed(call, question, info, deadline))
        return (yield from self._in_parts(call, question))

    def _in_parts(self, call: Call, question: Question) -> Flow[Explained]:
        """The backend's answer. It is asked for some rows at a time, so that other calls have their turns."""
        backend = self._engine.backend
        step, rows = backend.explain_rows, question.rows
        found: list[Explained] = []
        for begin in range(0, max(rows, 1), step):
            part = question if rows <= step else _part(question, begin, begin + step)
            answer = yield from backend.start(call, part)
            _check(answer, part, str(backend.address))
            question = replace(question, method=answer.method)
            found.append(answer)
        return found[0] if len(found) == 1 else _joined(found, question)

    def _perturbed(self, call: Call, question: Question, info: ModelInfo, deadline: Deadline | None) -> Flow[Explained]:
        """Asks the model for its answers to other inputs, in batches as `map` sends them."""
        output = targets.output_of(question.targets, info)
        limit = size(info, self._options.get("batch_size"))
        predict = partial(self._told_by_predict, call, deadline)
        scorer = Scorer(predict, output, question, limit, next_token=_goes_on(info))
        rows = rows_of(question)
        outputs = yield from scorer.outputs(rows)
        wanted = targets.resolved(question.targets, outputs, output, info) if len(outputs) else None
        if question.method == "occlusion":
            found, error = (yield from occlude(scorer, rows, wanted, picked(outputs, wanted))), None
        else:
            found, error = yield from shapley(scorer, rows, wanted)
        return Explained(attributed(found, question), question.method, wanted, error)

    def _told_by_predict(
        self, call: Call, deadline: Deadline | None, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> Flow[Mapping[str, Tensor]]:
        asked = self._call("predict", deadline)
        try:
            answer: Prediction = yield from self._predict(asked, inputs, outputs)
        finally:
            _add(call, asked)
        return answer.tensors

    # ------------------------------------------------------------ the answer
    def _explanation(
        self, call: Call, question: Question, found: Explained, info: ModelInfo, kind: Kind
    ) -> Explanation:
        numpy, output = Kind.numpy(), targets.output_of(question.targets, info)
        return Explanation(
            call,
            {name: kind.give(tensor) for name, tensor in found.attributions.items()},
            {name: numpy.give(tensor) for name, tensor in question.inputs.items()},
            method=found.method,
            target=found.targets,
            completeness_error=found.completeness_error,
            labels=info.labels if targets.are_classes(output, info) else None,
            tokens=found.tokens,
            target_tokens=found.target_tokens,
            names=names_of(info),
            output=output.name,
        )


def _lacks(backend: Any, question: Question, method: str) -> str | None:
    """What is missing for a method: nothing for one that needs answers alone, but of texts it needs the tokens."""
    if method not in PERTURBING:
        return backend.lacks(method)  # type: ignore[no-any-return]
    return "is for arrays" if question.texts is not None and backend.lacks(method) is not None else None


def _goes_on(info: ModelInfo) -> bool:
    """Whether an answer is what comes next after each token of a text: it is explained by the next one."""
    ids = all(spec.datatype.startswith(("INT", "UINT")) for spec in info.inputs)
    return ids and "generate" in info.verbs


def _texts(inputs: Any, info: ModelInfo) -> tuple[str, ...] | None:
    """The texts among what was handed over; None where these are arrays."""
    if any(spec.datatype == "BYTES" for spec in info.inputs):
        return None
    if isinstance(inputs, str):
        return (inputs,)
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(one, str) for one in inputs):
        return tuple(inputs)
    return None


def _part(question: Question, begin: int, end: int) -> Question:
    """Some of its rows."""
    inputs = {name: _cut(tensor, question.axis(name), begin, end) for name, tensor in question.inputs.items()}
    return replace(
        question,
        inputs=inputs,
        texts=None if question.texts is None else question.texts[begin:end],
        targets=None if question.targets is None else question.targets[begin:end],
    )


def _cut(tensor: Tensor, axis: int | None, begin: int, end: int) -> Tensor:
    if axis is None:
        return tensor
    return Tensor(tensor.datatype, tensor.array[(*(slice(None),) * axis, slice(begin, end))])


def _add(call: Call, asked: Call) -> None:
    """What a call of its own took, to the call that it was made for."""
    call.attempts += asked.attempts
    call.request_id, call.version = asked.request_id, asked.version
    call.backend = asked.backend
    for name in ("queue", "compute", "network"):
        if (seconds := getattr(asked, name)) is not None:
            setattr(call, name, (getattr(call, name) or 0.0) + seconds)


def _check(found: Any, question: Question, where: str) -> None:
    """The other side of the question: each input has its attributions, of its shape."""
    if not isinstance(found, Explained) or found.method not in METHODS:
        raise ProtocolError(f"{where} explained with {type(found).__name__}, or by an unknown method")
    wanted = {TOKENS} if question.texts is not None else set(question.inputs)
    if set(found.attributions) != wanted:
        raise ProtocolError(f"{where} explained {sorted(found.attributions)}; {sorted(wanted)} were asked about")
    for name, tensor in found.attributions.items():
        shape = tuple(tensor.shape)
        right = shape == question.inputs[name].shape if name in question.inputs else _fits(shape, found, question)
        if not right or tensor.datatype not in ("FP32", "FP64"):
            raise ProtocolError(f"{where} explained {name!r} with {tensor.datatype} {list(shape)}")
    if found.targets is not None and len(found.targets) != question.rows:
        raise ProtocolError(f"{where} explained {len(found.targets)} targets; {question.rows} rows were asked about")


def _fits(shape: tuple[int, ...], found: Explained, question: Question) -> bool:
    tokens = found.tokens
    if tokens is None or len(tokens) != question.rows:
        return False
    return shape == (question.rows, max(map(len, tokens), default=0))


def _joined(parts: Sequence[Explained], question: Question) -> Explained:
    first = parts[0]
    names = list(first.attributions)
    longest = max((part.attributions[names[0]].shape[1] for part in parts), default=0) if first.tokens else 0
    errors = [part.completeness_error for part in parts if part.completeness_error is not None]
    return Explained(
        {name: _stacked([part.attributions[name] for part in parts], longest, question.axis(name)) for name in names},
        first.method,
        None if first.targets is None else tuple(target for part in parts for target in part.targets or ()),
        max(errors) if errors else None,
        None if first.tokens is None else tuple(tokens for part in parts for tokens in part.tokens or ()),
        None if first.target_tokens is None else tuple(one for part in parts for one in part.target_tokens or ()),
    )


def _stacked(tensors: Sequence[Tensor], longest: int, axis: int | None) -> Tensor:
    """The rows of all; those of texts are filled up to the longest with zeros."""
    if axis is None:  # shared by all rows, each part has told of the whole
        return tensors[0]
    arrays = [storage(tensor) for tensor in tensors]
    if longest:
        arrays = [np.pad(array, ((0, 0), (0, longest - array.shape[1]))) for array in arrays]
    return Tensor(tensors[0].datatype, np.concatenate(arrays, axis=axis))
