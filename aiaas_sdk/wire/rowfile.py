"""Rows as a file that can be sent: safetensors (huggingface/safetensors, "Format"), or npz without Python objects.

The arrays are named `x` and `y` where the model has one input and one output, else `x.INPUT` and `y.OUTPUT`; the first
axis of each is rows. What is read are views of the file's own bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aiaas_sdk.errors import BundleError, InputError, UnsupportedOperationError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.tensors import DATATYPES, Tensor, datatype_of, storage
from aiaas_sdk.wire import npy

__all__ = ["MAX_HEADER", "ZIP", "decode", "encode", "named", "sides"]

MAX_HEADER = 64 * 1024
"""Bytes of a safetensors header; ours have a few hundred."""
MAX_UNPACKED = 8 * 1024**3
"""Bytes that the arrays of a compressed npz may become."""
ZIP = b"PK\x03\x04"
"""What an npz file begins with."""
_DTYPES = {
    "BOOL": "BOOL",
    "UINT8": "U8",
    "UINT16": "U16",
    "UINT32": "U32",
    "UINT64": "U64",
    "INT8": "I8",
    "INT16": "I16",
    "INT32": "I32",
    "INT64": "I64",
    "FP16": "F16",
    "BF16": "BF16",
    "FP32": "F32",
    "FP64": "F64",
}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}


# ---------------------------------------------------------------- writing
def named(inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both sides under the names that they have in a file."""
    return {f"x.{name}": tensor for name, tensor in inputs.items()} | {
        f"y.{name}": tensor for name, tensor in targets.items()
    }


def encode(tensors: Mapping[str, Tensor]) -> tuple[Buffer, ...]:
    """The file as parts, one after the other; arrays aren't copied.

    Raises:
        UnsupportedOperationError: there is text among them.
    """
    header: dict[str, Any] = {}
    parts: list[Buffer] = []
    at = 0
    # the widest elements first, so that each array lies where a machine likes to read it
    for name, tensor in sorted(tensors.items(), key=lambda item: -(DATATYPES[item[1].datatype].size or 0)):
        if tensor.datatype not in _DTYPES:
            raise UnsupportedOperationError(
                f"{name} holds text, and rows of text can't be sent yet", hint="Send numbers, such as token ids"
            )
        view: memoryview = np.ascontiguousarray(storage(tensor)).reshape(-1).view(np.uint8).data
        header[name] = {
            "dtype": _DTYPES[tensor.datatype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + view.nbytes],
        }
        parts.append(view)
        at += view.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return (len(text).to_bytes(8, "little") + text, *parts)


# ---------------------------------------------------------------- reading
def decode(data: Any) -> dict[str, Tensor]:
    """The arrays of a file by name.

    Args:
        data: its bytes; an `mmap` is read where it lies.

    Raises:
        InputError: it is no such file, or is damaged.
    """
    return _from_zip(data) if data[:4] == ZIP else _from_safetensors(data)


def _from_safetensors(data: Any) -> dict[str, Tensor]:
    from aiaas_sdk.bundle.weights import WIDTHS, check  # whoever sends rows needs no bundles

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise InputError(
            "the file is neither safetensors nor npz", hint="Write one with numpy.savez(x=..., y=...); JSONL isn't read"
        )
    try:
        check(data, "the file")
    except BundleError as error:
        raise InputError(error.message) from None
    start = 8 + length
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DATATYPES:
            raise InputError(f"the array {name[:80]!r} has the dtype {entry['dtype']}, which no model takes")
        datatype = _DATATYPES[entry["dtype"]]
        begin, end = entry["data_offsets"]
        count = (end - begin) // WIDTHS[entry["dtype"]]
        array = np.frombuffer(data, DATATYPES[datatype].dtype, count, start + begin) if count else np.empty(0)
        if not array.flags.aligned:
            array = array.copy()
        found[name] = Tensor(datatype, array.astype(DATATYPES[datatype].dtype, copy=False).reshape(entry["shape"]))
    return found


def _from_zip(data: Any) -> dict[str, Tensor]:
    """Each member is read as an npy file of its own: nothing is allocated on the word of a header."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
                raise InputError(f"the arrays of the npz file are larger than {MAX_UNPACKED} bytes together")
            for entry in archive.infolist():
                array = npy.decode(archive.read(entry))
                if array.dtype.kind == "U":
                    raise InputError("rows of text can't be read yet", hint="Send numbers, such as token ids")
                found[entry.filename.removesuffix(".npy")] = Tensor(datatype_of(array), np.ascontiguousarray(array))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"the npz file is damaged ({type(error).__name__})") from None
    return found


def sides(tensors: Mapping[str, Tensor], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[Any, Any]:
    """What a file holds as x and y, by the names of a model's inputs and outputs.

    Raises:
        InputError: an array has another name, or a side is missing.
    """
    x, y = dict(_side(tensors, "x", inputs)), dict(_side(tensors, "y", outputs))
    strange = tensors.keys() - {"x", "y"} - {f"x.{name}" for name in x} - {f"y.{name}" for name in y}
    if strange:
        raise InputError(
            f"the file has an array {sorted(strange)[0][:80]!r}",
            hint="Name them x and y, or x.INPUT and y.OUTPUT; its inputs: "
            f"{', '.join(inputs)}; its outputs: {', '.join(outputs)}",
        )
    for name, side in (("x", x), ("y", y)):
        if not side:
            raise InputError(f"the file has no array {name}", hint="Name them x and y, or x.INPUT and y.OUTPUT")
    return x, y


def _side(tensors: Mapping[str, Tensor], side: str, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    if side in tensors and len(names) == 1:
        yield names[0], tensors[side]
    for name in names:
        if (tensor := tensors.get(f"{side}.{name}")) is not None:
            yield name, tensor
