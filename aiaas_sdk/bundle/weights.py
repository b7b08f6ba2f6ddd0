"""The header of a safetensors file, checked before the library sees it.

Format: 8 bytes of little-endian header length, JSON, then the tensors without gap or overlap
(huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from typing import Any

from aiaas_sdk.errors import BundleError

__all__ = ["check"]

MAX_HEADER = 100_000_000
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


def check(data: bytes | bytearray, where: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each tensor's dtype and shape. BundleError where the header can't be true of these bytes."""
    header, start = _header(data, where)
    header.pop("__metadata__", None)
    spans: list[tuple[int, int]] = []
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(entry, f"{where}: tensor {name[:80]!r}")
        if end > len(data) - start:
            raise BundleError(f"{where}: tensor {name[:80]!r} lies past the end of the file")
        spans.append((begin, end))
        found[name] = dtype, shape
    _check_packed(sorted(spans), len(data) - start, where)
    return found


def _header(data: bytes | bytearray, where: str) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise BundleError(f"{where} is too short to be a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER, len(data) - 8):
        raise BundleError(f"{where} announces a header of {length} bytes, which it can't have")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise BundleError(f"{where} has a header that isn't JSON") from None
    if not isinstance(header, dict):
        raise BundleError(f"{where} has a header that isn't an object")
    return header, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _entry(entry: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or {*entry} != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{where} isn't described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in WIDTHS:
        raise BundleError(f"{where} has an unknown dtype")
    if not _naturals(shape) or len(shape) > 64 or not _naturals(offsets) or len(offsets) != 2:
        raise BundleError(f"{where} has a shape or offsets that aren't counts")
    begin, end = offsets
    if end - begin != math.prod(shape) * WIDTHS[dtype]:
        raise BundleError(f"{where} has another size than its shape says")
    return dtype, tuple(shape), begin, end


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_packed(spans: list[tuple[int, int]], size: int, where: str) -> None:
    at = 0
    for begin, end in spans:
        if begin != at:
            raise BundleError(f"{where}: its tensors overlap or leave a hole")
        at = end
    if at != size:
        raise BundleError(f"{where} holds bytes that belong to no tensor")
