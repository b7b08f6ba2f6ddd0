"""One array as application/x-npy: numpy's own file format (NEP 1), without pickles."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.tensors import Kind, Tensor

__all__ = ["decode", "encode"]

_MAX_HEADER = 4096  # bytes; numpy writes about a hundred
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def decode(body: Buffer) -> Any:
    """The array: a view of the body. Nothing is allocated on the word of its header.

    Raises:
        InputError: it is none, holds Python objects, or has another size than its header says.
    """
    stream = io.BytesIO(bytes(memoryview(body)[: _MAX_HEADER + 16]))
    try:
        version = npy.read_magic(stream)
        shape, column_first, dtype = _READERS[version](stream, max_header_size=_MAX_HEADER)
    except Exception:  # it is read as a Python literal, and tokenize and ast have errors of their own
        raise InputError("the body is no npy file of version 1 or 2") from None
    if dtype.kind not in "biufU" or any(type(size) is not int or size < 0 for size in shape):
        raise InputError("the npy file holds something else than numbers, texts, or true and false")
    count = math.prod(shape)
    data = memoryview(body)[stream.tell() :]
    if len(data) != count * dtype.itemsize:
        raise InputError(f"the npy file has {len(data)} bytes of data, and its header says {count * dtype.itemsize}")
    if not len(data):
        return np.empty(shape, dtype)
    array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if column_first else "C")


def encode(tensor: Tensor) -> bytes | None:
    """The tensor as a file, BF16 as float32; None for texts and bytes, which the format hasn't without pickles."""
    if tensor.datatype == "BYTES":
        return None
    stream = io.BytesIO()
    npy.write_array(stream, Kind.numpy().give(tensor), allow_pickle=False)
    return stream.getvalue()
