"""Tensors across the border where numpy and onnxruntime don't share a datatype: texts and BF16."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from aiaas_onnx.runtime import onnxruntime
from aiaas_sdk.errors import InputError
from aiaas_sdk.tensors import Tensor, storage

__all__ = ["from_array", "from_value", "to_array", "to_value"]

Array = npt.NDArray[Any]


def to_array(name: str, tensor: Tensor) -> Any:
    """An input as `run` takes it: texts as `str`, BF16 as onnxruntime's own, others as they are."""
    if tensor.datatype == "BF16":
        return to_value(tensor)
    array = storage(tensor)
    if tensor.datatype != "BYTES":
        return array
    try:
        return _each(array, [str(element, "utf-8") for element in array.flat])
    except UnicodeDecodeError:
        raise InputError(f"input {name!r} holds bytes that aren't UTF-8, and ONNX has texts alone") from None


def to_value(tensor: Tensor) -> onnxruntime.OrtValue:
    """Any tensor but texts as onnxruntime's own, over the same memory."""
    array = storage(tensor)
    if tensor.datatype == "BF16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, onnx.TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def from_array(array: Array, datatype: str) -> Array:
    return _each(array, [text.encode() for text in array.flat]) if datatype == "BYTES" else array


def from_value(value: onnxruntime.OrtValue, datatype: str) -> Array:
    """An output in storage form. BF16 is copied: numpy couldn't keep onnxruntime's memory alive."""
    if datatype != "BF16":
        return from_array(value.numpy(), datatype)
    shape = tuple(value.shape())
    memory = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr()) if math.prod(shape) else b""
    return np.frombuffer(memory, np.uint16).reshape(shape).copy()


def _each(like: Array, elements: list[Any]) -> Array:
    found = np.empty(like.size, object)
    found[:] = elements
    return found.reshape(like.shape)
