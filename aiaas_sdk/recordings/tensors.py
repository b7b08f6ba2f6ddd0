"""A tensor as JSON: a list that reads well where it is small and says exactly the same, else base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.tensors import Tensor, from_bytes, from_json, storage, to_bytes, to_json

__all__ = ["copied", "decode", "encode"]

LISTED = 64
"""Elements that are written as a list; more go as base64."""
_ROUNDED = frozenset(("FP16", "FP32", "BF16"))


def encode(tensor: Tensor) -> dict[str, Any]:
    """The JSON of a tensor of any datatype: `datatype`, `shape`, and `data` (nested lists) or `base64`."""
    head = {"datatype": tensor.datatype, "shape": list(tensor.shape)}
    data = bytes(to_bytes(tensor))
    if int(np.prod(tensor.shape)) <= LISTED and (flat := _listed(tensor, data)) is not None:
        return {**head, "data": _nested(flat, tensor.shape)}
    return {**head, "base64": base64.b64encode(data).decode()}


def _listed(tensor: Tensor, data: bytes) -> list[Any] | None:
    """The elements as JSON has them; None where they wouldn't come back as they are (NaN, bytes that are no text)."""
    try:
        flat = to_json(tensor)
        if tensor.datatype in _ROUNDED:  # 0.1 rather than 0.10000000149011612, which is the same number in FP32
            kind = np.float16 if tensor.datatype == "FP16" else np.float32
            flat = [float(str(kind(value))) for value in flat]
        if any(isinstance(value, float) and not np.isfinite(value) for value in flat):
            return None
        again = bytes(to_bytes(from_json(tensor.datatype, tensor.shape, flat, "")))
    except (InputError, ProtocolError):
        return None
    return flat if again == data else None


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape or not flat:
        return flat
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape).tolist()


def decode(value: Any, where: str) -> Tensor:
    """The tensor again. ProtocolError, which begins with `where`, for what is none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("shape"), list):
        raise ProtocolError(f"{where} is no tensor: it needs datatype, shape, and data or base64")
    unknown = value.keys() - {"datatype", "shape", "data", "base64"}
    if unknown or ("data" in value) == ("base64" in value):
        said = f"the unknown key {min(unknown)!r}" if unknown else "not exactly one of data and base64"
        raise ProtocolError(f"{where} has {said}")
    datatype = value.get("datatype")
    if not isinstance(datatype, str):
        raise ProtocolError(f"{where} has a datatype that is no text")
    if "data" in value:
        return from_json(datatype, value["shape"], value["data"], where)
    try:
        data = base64.b64decode(value["base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ProtocolError(f"{where} has base64 that can't be read") from None
    return from_bytes(datatype, value["shape"], data, where)


def copied(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, as numpy."""
    return Tensor(tensor.datatype, storage(tensor).copy())
