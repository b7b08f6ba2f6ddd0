"""An error as JSON, so that it comes back as the same class with the same attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiaas_sdk import errors
from aiaas_sdk.errors import AiaasError, ProtocolError
from aiaas_sdk.recordings.calls import REQUEST_ID

__all__ = ["decode", "encode"]

_GIVEN = ("address", "hint", "retry_after", "retryable", "status")
_COUNTS = ("allowed", "attempts")
_COMMON = frozenset(vars(AiaasError("")))
"""What every error has. Times among it aren't written: they differ with each run."""


def encode(error: AiaasError) -> dict[str, Any]:
    """Class, message and attributes. A subclass that isn't ours is written as the nearest one that is."""
    written = {"class": _known(type(error)), "message": _without_id(error.message, error)}
    for name in _GIVEN:
        value = getattr(error, name)
        if value is not None and value != getattr(type(error), name, None):
            written[name] = _without_id(value, error) if name == "hint" else value
    if error.request_id is not None:
        written["request_id"] = REQUEST_ID
    written |= {name: count for name in _COUNTS if (count := getattr(error, name))}
    own = sorted(vars(error).keys() - _COMMON - {"retryable"})
    return written | {name: _as_json(getattr(error, name)) for name in own}


def _known(cls: type[AiaasError]) -> str:
    names = [kind.__name__ for kind in cls.__mro__]
    return next(name for name, kind in zip(names, cls.__mro__, strict=True) if kind is getattr(errors, name, None))


def _without_id(text: str, error: AiaasError) -> str:
    return text.replace(error.request_id, REQUEST_ID) if error.request_id else text


def _as_json(value: Any) -> Any:
    """The value, or None for what JSON hasn't."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return None
    return value


def decode(value: Any, where: str) -> AiaasError:
    """A new error. ProtocolError, which begins with `where`, for what is none."""
    if not isinstance(value, Mapping):
        raise ProtocolError(f"{where} is no error: it needs class and message")
    name, message = value.get("class"), value.get("message")
    if name not in errors.__all__ or not isinstance(message, str):
        raise ProtocolError(f"{where} has the class {name!r}; it needs one of aiaas_sdk.errors, and a message")
    cls = getattr(errors, name)
    error: AiaasError = cls.__new__(cls)
    given = {key: value[key] for key in (*_GIVEN, "request_id") if key in value}
    AiaasError.__init__(error, message, **given)  # a subclass may take other arguments
    for key in value.keys() - given.keys() - {"class", "message"}:
        if not key.isidentifier() or hasattr(cls, key):  # no attribute of ours: it would hide a method
            raise ProtocolError(f"{where} has the attribute {key!r}, which {name} can't have")
        setattr(error, key, value[key])
    return error
