"""Values that others made, as JSON, and the numbers that JSON lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError, ProtocolError

__all__ = ["decode", "encode"]

NUMBER = "$number"
"""The only key of an object that stands for a number which JSON hasn't. An object of a user's with this one key
is put into another such object.
"""
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any, where: str) -> Any:
    """The value in new lists, objects, texts and numbers. InputError, which begins with `where`, for what is none."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # an enum's too
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _number(float(value))
    if isinstance(value, Mapping):
        return _object(value, where)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [encode(element, where) for element in value]
    raise InputError(f"{where} holds {kind_of(value)}, which JSON hasn't", hint="Give texts, numbers and lists")


def _number(value: float) -> Any:
    if math.isfinite(value):
        return value
    return {NUMBER: next(name for name, known in _NUMBERS.items() if value == known or value != value)}


def _object(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    found = {}
    for name, element in value.items():
        if not isinstance(name, str):
            raise InputError(f"{where} has a name that is no text but {kind_of(name)}")
        found[str.__str__(name)] = encode(element, where)
    return {NUMBER: found} if found.keys() == {NUMBER} else found


def decode(value: Any, where: str) -> Any:
    """The value again. ProtocolError, which begins with `where`, for a number that is none."""
    if isinstance(value, list):
        return [decode(element, where) for element in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {NUMBER}:
        inner = value[NUMBER]
        if isinstance(inner, str) and inner in _NUMBERS:
            return _NUMBERS[inner]
        if not isinstance(inner, dict):
            raise ProtocolError(f"{where} has a {NUMBER} that is none of {', '.join(_NUMBERS)}")
        value = inner
    return {name: decode(element, where) for name, element in value.items()}
