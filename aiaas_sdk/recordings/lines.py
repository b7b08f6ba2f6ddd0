"""A recorded call as one line of JSON, keys sorted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.recordings import answers, failures, tensors
from aiaas_sdk.recordings.calls import LEARNT, REQUEST_ID, Asked, Outcome, Recorded

__all__ = ["decode", "encode"]

_KEYS = frozenset(("address", "answer", "error", "inputs", "learnt", "options", "verb"))


def encode(call: Recorded) -> str:
    asked, outcome = call.asked, call.outcome
    known = dict(outcome.learnt) | ({"request_id": REQUEST_ID} if outcome.request_id else {})
    value: dict[str, Any] = {"address": asked.address, "verb": asked.verb}
    if outcome.error is not None:
        value["error"] = failures.encode(outcome.error)
    else:
        value["answer"] = answers.encode(asked.verb, outcome.answer)
    if asked.inputs:
        value["inputs"] = {name: tensors.encode(tensor) for name, tensor in asked.inputs.items()}
    value |= {key: found for key, found in (("options", asked.options), ("learnt", known)) if found}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


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
    inputs = {
        name: tensors.decode(tensor, f"{where}: input {name!r}")
        for name, tensor in _object(value, "inputs", where).items()
    }
    asked = Asked(address, verb, inputs, _object(value, "options", where))
    return Recorded(asked, _outcome(value, verb, where), number)


def _outcome(value: Mapping[str, Any], verb: str, where: str) -> Outcome:
    found = dict(_object(value, "learnt", where))
    named = found.pop("request_id", None) is not None
    for name, known in found.items():
        if type(known) is not LEARNT.get(name):
            raise ProtocolError(f"{where}: learnt has {name!r}, which is unknown or of another type")
    if "error" in value:
        return Outcome(error=failures.decode(value["error"], f"{where}: error"), learnt=found, request_id=named)
    return Outcome(answers.decode(verb, value["answer"], f"{where}: answer"), learnt=found, request_id=named)


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
