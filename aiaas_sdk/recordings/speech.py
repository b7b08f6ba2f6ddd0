"""What language models say, as JSON: answers, pieces of a streamed one, calls of tools, vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.recordings import tensors, values
from aiaas_sdk.records.chat import Choice, Embedded, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.tensors import Tensor, datatype_of, storage

__all__ = [
    "decode_calls",
    "decode_deltas",
    "decode_embedded",
    "decode_spoken",
    "encode_calls",
    "encode_deltas",
    "encode_embedded",
    "encode_spoken",
]

_SPOKEN: Mapping[str, tuple[type, ...]] = {"choices": (list,), "input_tokens": (int,), "output_tokens": (int,)}
_CHOICE: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "finish_reason": (str,),
    "reasoning": (str,),
    "tool_calls": (list,),
    "logprobs": (object,),
}
_DELTA: Mapping[str, tuple[type, ...]] = {"text": (str,), "reasoning": (str,), "tool_calls": (list,)}
_CALL: Mapping[str, tuple[type, ...]] = {"id": (str,), "name": (str,), "arguments": (dict, str)}
_EMBEDDED: Mapping[str, tuple[type, ...]] = {"vectors": (dict,), "input_tokens": (int,)}


# ---------------------------------------------------------------- answers
def encode_spoken(spoken: Spoken) -> dict[str, Any]:
    """What is unknown or empty is left out. ProtocolError where it holds what JSON can't."""
    choices = [_choice(choice) for choice in spoken.choices]
    return {"choices": choices, **_known(input_tokens=spoken.input_tokens, output_tokens=spoken.output_tokens)}


def _choice(choice: Choice) -> dict[str, Any]:
    try:
        logprobs = values.encode(choice.logprobs, "logprobs of the answer")
        calls = encode_calls(choice.tool_calls, "the answer")
    except InputError as error:
        raise ProtocolError(error.message) from None
    return {
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        **_known(reasoning=choice.reasoning, tool_calls=calls or None, logprobs=logprobs),
    }


def decode_spoken(value: Any, where: str) -> Spoken:
    found = _fields(value, where, _SPOKEN, ("choices",))
    found["choices"] = tuple(_read_choice(choice, f"{where} choice {n}") for n, choice in enumerate(found["choices"]))
    return Spoken(**found)


def _read_choice(value: Any, where: str) -> Choice:
    found = _fields(value, where, _CHOICE, ("text", "finish_reason"))
    found["tool_calls"] = decode_calls(found.get("tool_calls", []), where)
    found["logprobs"] = values.decode(found.get("logprobs"), where)
    return Choice(**found)


# ---------------------------------------------------------------- pieces
def encode_deltas(deltas: Sequence[Delta]) -> list[Any]:
    """A delta that is nothing but text is a text."""
    return [_delta(delta) for delta in deltas]


def _delta(delta: Delta) -> Any:
    if not delta.reasoning and not delta.tool_calls:
        return delta.text
    try:
        calls = encode_calls(delta.tool_calls, "a delta")
    except InputError as error:
        raise ProtocolError(error.message) from None
    return _known(text=delta.text or None, reasoning=delta.reasoning or None, tool_calls=calls or None)


def decode_deltas(value: Any, where: str) -> tuple[Delta, ...]:
    if not isinstance(value, list):
        raise ProtocolError(f"{where} is no list")
    return tuple(_read_delta(delta, f"{where} {n}") for n, delta in enumerate(value))


def _read_delta(value: Any, where: str) -> Delta:
    if isinstance(value, str):
        return Delta(value)
    found = _fields(value, where, _DELTA, ())
    found["tool_calls"] = decode_calls(found.get("tool_calls", []), where)
    return Delta(**found)


# ---------------------------------------------------------------- calls of tools
def encode_calls(calls: Sequence[ToolCall], where: str) -> list[dict[str, Any]]:
    """InputError, which begins with `where`, for arguments that JSON can't hold."""
    return [
        {
            "id": call.id,
            "name": call.name,
            "arguments": values.encode(call.arguments, f"{where} calls {call.name}, and"),
        }
        for call in calls
    ]


def decode_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if not isinstance(value, list):
        raise ProtocolError(f"{where} has tool_calls that are no list")
    return tuple(_read_call(call, f"{where} tool call {n}") for n, call in enumerate(value))


def _read_call(value: Any, where: str) -> ToolCall:
    found = _fields(value, where, _CALL, ("id", "name", "arguments"))
    return ToolCall(found["id"], found["name"], values.decode(found["arguments"], where))


# ---------------------------------------------------------------- vectors
def encode_embedded(embedded: Embedded) -> dict[str, Any]:
    """The vectors as a tensor, in the datatype that they have."""
    vectors = tensors.encode(Tensor(datatype_of(embedded.array), embedded.array))
    return {"vectors": vectors, **_known(input_tokens=embedded.input_tokens)}


def decode_embedded(value: Any, where: str) -> Embedded:
    found = _fields(value, where, _EMBEDDED, ("vectors",))
    return Embedded(storage(tensors.decode(found["vectors"], f"{where} vectors")), found.get("input_tokens"))


# ---------------------------------------------------------------- parts
def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _fields(value: Any, where: str, kinds: Mapping[str, tuple[type, ...]], needed: Sequence[str]) -> dict[str, Any]:
    """An object with these fields of these kinds, all of them but the needed ones optional."""
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is no object")
    for name, found in value.items():
        if name not in kinds:
            raise ProtocolError(f"{where} has the unknown key {name!r}")
        if not isinstance(found, kinds[name]) or (kinds[name] == (int,) and type(found) is not int):
            raise ProtocolError(f"{where} has {with_article(name)} of another kind")
    for name in needed:
        if name not in value:
            raise ProtocolError(f"{where} has no {name}")
    return dict(value)
