"""A recorded call as one line of JSON: the question, then what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.recordings import answers, failures, questions, speech, tensors
from aiaas_sdk.recordings.calls import LEARNT, REQUEST_ID, Asked, Outcome, Recorded

__all__ = ["decode", "encode"]

_WORDS = frozenset(word for words in questions.WORDS.values() for word in words)
_KEYS = frozenset(("address", "answer", "deltas", "error", "inputs", "learnt", "options", "verb")) | _WORDS


def encode(call: Recorded) -> str:
    asked, outcome = call.asked, call.outcome
    value: dict[str, Any] = {"address": asked.address, "verb": asked.verb}
    if asked.inputs:
        value["inputs"] = {name: tensors.encode(tensor) for name, tensor in asked.inputs.items()}
    value |= asked.words
    if asked.options:
        value["options"] = dict(sorted(asked.options.items()))
    if asked.verb == "stream":
        value["deltas"] = speech.encode_deltas(outcome.deltas)
    if outcome.error is not None:
        value["error"] = failures.encode(outcome.error)
    else:
        value["answer"] = answers.encode(asked.verb, outcome.answer)
    if known := dict(outcome.learnt) | ({"request_id": REQUEST_ID} if outcome.request_id else {}):
        value["learnt"] = known
    # names keep their order: that of a tool's arguments, or of outputs, is the model's
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def decode(line: str, number: int, where: str) -> Recorded:
    """The call in the line of that number. ProtocolError, which begins with `where`, for what is none."""
    value = _parsed(line, where)
    if unknown := value.keys() - _KEYS:
        raise ProtocolError(f"{where} has the unknown key {min(unknown)!r}")
    address, verb = value.get("address"), value.get("verb")
    if not isinstance(address, str) or verb not in answers.VERBS:
        raise ProtocolError(f"{where} needs an address, and a verb of {', '.join(answers.VERBS)}; its verb is {verb!r}")
    if ("answer" in value) == ("error" in value):
        raise ProtocolError(f"{where} has not exactly one of answer and error")
    if ("deltas" in value) != (verb == "stream"):
        raise ProtocolError(f"{where}: a stream has deltas, and no other verb has")
    return Recorded(_asked(value, address, verb, where), _outcome(value, verb, where), number)


def _asked(value: Mapping[str, Any], address: str, verb: str, where: str) -> Asked:
    inputs = _object(value, "inputs", where)
    if inputs and verb != "predict":
        raise ProtocolError(f"{where}: a call of {verb} has no inputs")
    words = {name: value[name] for name in value if name in _WORDS}
    questions.check(verb, words, where)
    read = {name: tensors.decode(tensor, f"{where}: input {name!r}") for name, tensor in inputs.items()}
    return Asked(address, verb, read, words, _object(value, "options", where))


def _outcome(value: Mapping[str, Any], verb: str, where: str) -> Outcome:
    found = dict(_object(value, "learnt", where))
    named = found.pop("request_id", None) is not None
    for name, known in found.items():
        if type(known) is not LEARNT.get(name):
            raise ProtocolError(f"{where}: learnt has {name!r}, which is unknown or of another type")
    deltas = speech.decode_deltas(value.get("deltas", []), f"{where}: deltas")
    if "error" in value:
        error = failures.decode(value["error"], f"{where}: error")
        return Outcome(error=error, learnt=found, request_id=named, deltas=deltas)
    answer = answers.decode(verb, value["answer"], f"{where}: answer")
    return Outcome(answer, learnt=found, request_id=named, deltas=deltas)


def _object(value: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise ProtocolError(f"{where}: {key} is no object")
    return found


def _parsed(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{where} is no JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is no call: a call is an object with address and verb")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
