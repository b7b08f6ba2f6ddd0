"""What each verb answers, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.recordings import speech, tensors
from aiaas_sdk.records.chat import Spoken
from aiaas_sdk.records.model import ModelInfo, TensorSpec

__all__ = ["VERBS", "decode", "encode"]


def encode(verb: str, answer: Any) -> Any:
    """The JSON of an answer of a verb of `VERBS`."""
    return _ANSWERS[verb][0](answer)


def decode(verb: str, value: Any, where: str) -> Any:
    """The answer again. ProtocolError, which begins with `where`, for what is none."""
    return _ANSWERS[verb][1](value, where)


def _outputs(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensors.encode(tensor) for name, tensor in answer.items()}


def _read_outputs(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is no object of tensors by name")
    return {name: tensors.decode(tensor, f"{where} {name!r}") for name, tensor in value.items()}


def _info(answer: ModelInfo) -> dict[str, Any]:
    """What differs from a model that says nothing of itself; of the metadata what JSON has."""
    value = {
        field.name: found
        for field in dataclasses.fields(answer)
        if (found := getattr(answer, field.name)) not in (None, "", (), frozenset(), {})
    }
    for name in {"inputs", "outputs"} & value.keys():
        value[name] = [dataclasses.asdict(spec) for spec in value[name]]
    if "verbs" in value:
        value["verbs"] = sorted(answer.verbs)
    if "metadata" in value:
        value["metadata"] = {name: found for name, found in answer.metadata.items() if _as_json(found)}
    return value


def _as_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return False


def _read_info(value: Any, where: str) -> ModelInfo:
    try:
        found = dict(value)
        for name in {"inputs", "outputs"} & found.keys():
            found[name] = tuple(_spec(spec) for spec in found[name])
        for name in {"versions", "labels"} & found.keys():
            found[name] = tuple(found[name])
        found["verbs"] = frozenset(found.get("verbs", ()))
        return ModelInfo(**found)
    except (TypeError, ValueError, KeyError):
        raise ProtocolError(f"{where} doesn't say what the model is") from None


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(str(value["name"]), str(value["datatype"]), tuple(int(size) for size in value["shape"]))


def _read_ready(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(f"{where} is neither true nor false")
    return value


def _read_nothing(value: Any, where: str) -> None:
    if value is not None:
        raise ProtocolError(f"{where} isn't null")


def _whole(answer: Spoken | None) -> Any:
    """None of a stream that its reader left."""
    return None if answer is None else speech.encode_spoken(answer)


def _read_whole(value: Any, where: str) -> Spoken | None:
    return None if value is None else speech.decode_spoken(value, where)


_ANSWERS: Mapping[str, tuple[Any, Any]] = {
    "load": (lambda answer: None, _read_nothing),
    "open": (_info, _read_info),
    "ready": (bool, _read_ready),
    "predict": (_outputs, _read_outputs),
    "generate": (speech.encode_spoken, speech.decode_spoken),
    "stream": (_whole, _read_whole),
    "embed": (speech.encode_embedded, speech.decode_embedded),
}
"""For each verb how its answer is written, and read."""
VERBS = tuple(_ANSWERS)
"""What can be recorded: verbs, and "load", "open" and "ready", which go before."""
