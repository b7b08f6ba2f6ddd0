"""A request for text, as the clients of Triton's language backends write it, and the responses to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json

from aiaas_grpc.texts import COUNTED, FINISH, READ, SAMPLING, STREAM, TEXT_INPUT, TEXT_OUTPUT
from aiaas_sdk.errors import InputError
from aiaas_sdk.prompts import NAMES
from aiaas_sdk.records.language import Generation
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.oip import InferRequest, InferResponse
from aiaas_sdk.wire.status import clean

__all__ = ["Question", "question_of", "response_of"]

_TAKEN = (TEXT_INPUT, STREAM, SAMPLING)
_GIVEN = (TEXT_OUTPUT, FINISH, READ, COUNTED)
_PASSED = frozenset(("exclude_input_in_output",))
"""Inputs that say what is done in any case."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text to go on with, the options of `Sampling`, and whether the pieces are wanted as they come."""

    prompt: str
    streamed: bool
    sampling: Mapping[str, Any]


def question_of(request: InferRequest) -> Question:
    """What a request asks for.

    Raises:
        InputError: it has another input, or one of the wrong kind, or asks for another output.
    """
    for name in request.inputs:
        if name not in _TAKEN and name not in _PASSED:
            raise InputError(f"there is no input '{clean(name, 80)}' beside {', '.join(_TAKEN)}")
    for output in request.outputs or ():
        if output.name not in _GIVEN:
            raise InputError(f"there is no output '{clean(output.name, 80)}'; there are {', '.join(_GIVEN)}")
    wished = _one(request, STREAM, "BOOL") if STREAM in request.inputs else True
    return Question(_text(request, TEXT_INPUT), bool(wished), _sampling(request))


def _sampling(request: InferRequest) -> dict[str, Any]:
    """The options of the input, which are the caller's own words, and those among the parameters, which may be."""
    found = {name: value for name, value in request.parameters.items() if name in NAMES}
    if SAMPLING in request.inputs:
        try:
            told = from_json(_text(request, SAMPLING) or "{}")
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise InputError(f"{SAMPLING} isn't a JSON object")
        found |= told
    return {name: _number(value) if name != "stop" else value for name, value in found.items()}


def _number(value: Any) -> Any:
    """A number, also where it is written as text: vLLM's own examples do that."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError:
        return value


def _text(request: InferRequest, name: str) -> str:
    value = _one(request, name, "BYTES")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name} isn't UTF-8") from None


def _one(request: InferRequest, name: str, datatype: str) -> Any:
    tensor = request.inputs[name]
    if tensor.datatype != datatype or tensor.array.size != 1:
        shape = list(tensor.shape)
        raise InputError(f"{name} is {tensor.datatype} of shape {shape}; it is one {datatype}, as in shape [1]")
    return tensor.array.ravel()[0]


# ---------------------------------------------------------------- responses
def response_of(model: str, request: InferRequest, text: str, whole: Generation | None = None) -> InferResponse:
    """A response with a piece of text; with the whole answer, why it ended and what it took in tokens."""
    outputs = {TEXT_OUTPUT: _written(text)}
    if whole is not None:
        outputs[FINISH] = _written(whole.finish_reason)
        counts = {READ: whole.usage.input_tokens, COUNTED: whole.usage.output_tokens}
        outputs |= {name: _counted(count) for name, count in counts.items() if count is not None}
    wanted = None if request.outputs is None else {output.name for output in request.outputs}
    return InferResponse(
        model_name=model,
        model_version=None if whole is None else whole.version,
        id=request.id,
        outputs={name: tensor for name, tensor in outputs.items() if wanted is None or name in wanted},
    )


def _written(text: str) -> Tensor:
    array = np.empty(1, object)
    array[0] = text.encode()
    return Tensor("BYTES", array)


def _counted(count: int) -> Tensor:
    return Tensor("UINT32", np.array([count], np.uint32))
