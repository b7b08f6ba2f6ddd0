"""Vectors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.chat import Embedded
from aiaas_sdk.wire.openai.parts import parsed, usage_of

__all__ = ["decode_embeddings", "joined"]


def decode_embeddings(body: Buffer, count: int) -> Embedded:
    """The vectors, put in the order of their texts by their index.

    Raises:
        ProtocolError: an index is missing, doubled or too large, or the vectors aren't numbers of one length.
    """
    document = parsed(body, "the answer")
    entries = document.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProtocolError("the answer has no data")
    places = [entry.get("index", place) for place, entry in enumerate(entries)]
    if any(type(place) is not int for place in places) or sorted(places) != list(range(count)):
        raise ProtocolError(f"the answer has the indices {str(places)[:100]}; {count} texts were sent")
    ordered = dict(zip(places, entries, strict=True))
    vectors = [_vector(ordered[place].get("embedding"), place) for place in range(count)]
    if len({len(vector) for vector in vectors}) != 1:
        raise ProtocolError("the answer has vectors of different lengths")
    return Embedded(np.stack(vectors), usage_of(document.get("usage"))[0])


def joined(parts: Sequence[Embedded]) -> Embedded:
    """The vectors of several answers, one behind the other.

    Raises:
        ProtocolError: they are of different lengths.
    """
    if len(parts) == 1:
        return parts[0]
    if len({part.array.shape[1] for part in parts}) != 1:
        raise ProtocolError("the answers have vectors of different lengths")
    tokens = [part.input_tokens for part in parts if part.input_tokens is not None]
    array = np.concatenate([part.array for part in parts])
    return Embedded(array, sum(tokens) if len(tokens) == len(parts) else None)


def _vector(value: Any, place: int) -> Any:
    try:
        if isinstance(value, str) and value:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        if isinstance(value, list) and value and all(type(number) in (int, float) for number in value):
            with np.errstate(over="ignore"):  # float32 has no larger ones: they are infinite
                return np.array(value, np.float32)
    except (binascii.Error, ValueError, OverflowError):
        pass
    raise ProtocolError(f"embedding {place} isn't a vector of numbers")
