"""`explain` on the wire: our binary form, and the member of KServe's V1 form.

    POST /v2/models/NAME[/versions/VERSION]/explain

A server that has it announces the extension "explain". A request is one to `infer`, binary or JSON, whose
`parameters` may have `method` (a name; none is "auto"), `target` (an index, a label, a place in an output such as
"NAME[i,j]", or a list with one a row; none is what the model predicts) and `texts` (true: the one input, "text",
holds texts for the model's tokenizer). The answer is one to `infer`, whose outputs are named as the inputs ("tokens"
for texts), each of its input's shape; its `parameters` are `method`, `target` (a list, or null), `completeness_error`
(or null), `tokens` (for texts) and `target_tokens` (for texts that go on: the next tokens that are explained).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.explanation import AUTO, METHODS, Explained, Question
from aiaas_sdk.tensors import Tensor, storage
from aiaas_sdk.wire import oip
from aiaas_sdk.wire.status import clean

__all__ = ["EXTENSION", "ROWS", "Wanted", "decode_answer", "encode_answer", "encode_question", "wanted"]

EXTENSION = "explain"
ROWS = 64
"""Rows that one request may ask about: a row can cost thousands of passes. A multiple of what a model does at once."""
TEXT = "text"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks besides its inputs, as `explain` takes it."""

    method: str = AUTO
    target: Any = None


def wanted(parameters: Any) -> Wanted:
    """From a request's parameters.

    Raises:
        InputError: they are none, or of other kinds.
    """
    if parameters is None:
        return Wanted()
    if not isinstance(parameters, Mapping):
        raise InputError("the parameters aren't an object")
    method, target = parameters.get("method"), parameters.get("target")
    if method is not None and not isinstance(method, str):
        raise InputError("the parameter method isn't text")
    values = target if isinstance(target, list) else [target]
    if len(values) > ROWS or any(type(value) not in (int, str, type(None)) for value in values):
        raise InputError("the parameter target is an index, a label, or a list of them with one a row")
    return Wanted(method or AUTO, target)


def inputs_of(request: oip.InferRequest) -> Any:
    """What `explain` is given for a request: arrays by name, or texts.

    Raises:
        InputError: it says that it brings texts, and doesn't.
    """
    if not request.parameters.get("texts"):
        return request.inputs
    tensor = request.inputs.get(TEXT)
    if len(request.inputs) != 1 or tensor is None or tensor.datatype != "BYTES" or len(tensor.shape) != 1:
        raise InputError(f"texts are one input {TEXT!r}, BYTES of (texts,)")
    try:
        return [bytes(text).decode() for text in storage(tensor)]
    except UnicodeDecodeError:
        raise InputError("a text isn't UTF-8") from None


def encode_question(question: Question, *, binary: bool, id: str) -> oip.Message:
    """A request. Errors as `oip.encode_request`."""
    inputs = question.inputs
    if question.texts is not None:
        array = np.empty(len(question.texts), object)
        array[:] = [text.encode() for text in question.texts]
        inputs = {TEXT: Tensor("BYTES", array)}
    parameters = {
        "method": question.method,
        "target": None if question.targets is None else list(question.targets),
        "texts": question.texts is not None or None,
    }
    return oip.encode_request(inputs, outputs=None, binary=binary, id=id, parameters=parameters)


def encode_answer(
    found: Explained, request: oip.InferRequest, *, model_name: str, model_version: str | None
) -> oip.Message:
    """The answer to a request."""
    response = oip.InferResponse(
        model_name=model_name,
        model_version=model_version,
        outputs=dict(found.attributions),
        parameters=facts(found),
    )
    return oip.encode_response(response, request)


def facts(found: Explained) -> dict[str, Any]:
    """What an answer says besides its arrays."""
    told: dict[str, Any] = {
        "method": found.method,
        "target": None if found.targets is None else list(found.targets),
        "completeness_error": found.completeness_error,
    }
    if found.tokens is not None:
        told["tokens"] = found.tokens
    return told if found.target_tokens is None else {**told, "target_tokens": found.target_tokens}


def decode_answer(headers: Mapping[str, str], body: Buffer, *, id: str) -> tuple[Explained, str | None]:
    """An answer, and the version that gave it.

    Raises:
        ProtocolError: it can't be understood.
    """
    answer = oip.decode_response(headers, body, id=id)
    told = answer.parameters
    method, error = told.get("method"), told.get("completeness_error")
    if method not in METHODS:
        raise ProtocolError(f"it was explained by {clean(str(method), 40)!r}, which isn't known")
    if error is not None and type(error) not in (int, float):
        raise ProtocolError("the completeness_error isn't a number")
    tokens, target_tokens = told.get("tokens"), told.get("target_tokens")
    found = Explained(
        answer.outputs,
        method,
        _targets(told.get("target")),
        None if error is None else float(error),
        None if tokens is None else _tokens(tokens),
        None if target_tokens is None else _tokens([target_tokens])[0],
    )
    return found, answer.model_version


def _targets(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or any(type(one) is not int or one < 0 for one in value):
        raise ProtocolError("the target isn't a list of indices")
    return tuple(value)


def _tokens(value: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ProtocolError("the tokens aren't a list")
    for row in value:
        if not isinstance(row, list) or any(type(token) is not str for token in row):
            raise ProtocolError("the tokens of a text aren't a list of texts")
    return tuple(tuple(row) for row in value)
