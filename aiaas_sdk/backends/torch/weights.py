"""A module's state as a safetensors file, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import torch
from safetensors.torch import save

from aiaas_sdk.errors import BundleError

__all__ = ["dtype_of", "from_bytes", "to_bytes"]

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def to_bytes(state: Mapping[str, torch.Tensor]) -> bytes:
    """The file. Of names that share one tensor one is written; the file's metadata maps the others to it.

    safetensors' own `save_model` notes tied names in the same way.
    """
    kept: dict[str, torch.Tensor] = {}
    first: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        plain = tensor.detach()
        if plain.is_meta or plain.layout != torch.strided:
            raise BundleError(f"the tensor {name!r} has no values ({plain.layout} on {plain.device})")
        place = (plain.device, plain.data_ptr(), plain.dtype, tuple(plain.shape), plain.stride())
        if plain.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            kept[name] = plain.cpu().clone(memory_format=torch.contiguous_format)  # views apart, memory in order
    return save(kept, metadata=tied or None)


def from_bytes(data: bytearray) -> dict[str, torch.Tensor]:
    """The tensors of a file whose header `bundle.read` has checked. Each has memory of its own, well aligned."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    tied = header.pop("__metadata__", None) or {}
    found = {name: _tensor(data, 8 + length, entry) for name, entry in header.items()}
    for name, other in tied.items():
        if other in found and name not in found:
            found[name] = found[other]
    return found


def _tensor(data: bytearray, start: int, entry: Mapping[str, object]) -> torch.Tensor:
    dtype, shape, offsets = DTYPES[str(entry["dtype"])], entry["shape"], entry["data_offsets"]
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    # by way of bytes: a header's length may leave the tensors at any offset
    raw = torch.frombuffer(data, dtype=torch.uint8, offset=start + offsets[0], count=offsets[1] - offsets[0])
    return raw.clone().view(dtype).reshape(shape)


def dtype_of(state: Mapping[str, torch.Tensor]) -> str:
    """The one floating dtype of a module's tensors ("float32"), several joined by +, or "" where there is none."""
    found = sorted({str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()})
    return "+".join(found)
