"""Tensors of every datatype survive a recording bit by bit, and the small ones can be read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.recordings.tensors import decode, encode
from aiaas_sdk.tensors import DATATYPES, Tensor, from_bytes, to_bytes

NUMBERS = [name for name in DATATYPES if name not in ("BOOL", "BYTES")]


def through(tensor: Tensor) -> Tensor:
    again = decode(json.loads(json.dumps(encode(tensor), allow_nan=False)), "here")
    assert (again.datatype, again.shape) == (tensor.datatype, tensor.shape)
    assert bytes(to_bytes(again)) == bytes(to_bytes(tensor))
    return again


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (1,), (2, 3), (4, 4, 4), (5, 13)])
def test_any_bits_come_back(datatype: str, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape)) * DATATYPES[datatype].size
    data = np.random.default_rng(size).bytes(size)
    through(from_bytes(datatype, shape, data, "here"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-45, 3.4028235e38, 0.1])
def test_special_floats_come_back(value: float) -> None:
    through(Tensor("FP32", np.array([value, 1], np.float32)))


def test_whole_numbers_beyond_floats_come_back() -> None:
    through(Tensor("INT64", np.array([2**63 - 1, -(2**63)])))
    through(Tensor("UINT64", np.array([2**64 - 1], np.uint64)))


@pytest.mark.parametrize("elements", [[b"text", "grün\u2028".encode()], [b"\xff\x00", b"text"], [b""], []])
def test_bytes_come_back(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    through(Tensor("BYTES", array))


def test_truth_values_come_back() -> None:
    through(Tensor("BOOL", np.array([[True], [False]])))


@pytest.mark.parametrize(
    ("tensor", "data"),
    [
        (Tensor("FP32", np.array([[0.1, 0.2], [1e-7, 3]], np.float32)), [[0.1, 0.2], [1e-7, 3.0]]),
        (Tensor("FP16", np.array([0.1], np.float16)), [0.1]),
        (Tensor("INT8", np.array(5, np.int8)), [5]),
        (Tensor("BYTES", np.array([b"a", b"b"], object)), ["a", "b"]),
        (Tensor("BOOL", np.array([True])), [True]),
    ],
)
def test_small_ones_are_lists_that_read_well(tensor: Tensor, data: object) -> None:
    assert encode(tensor)["data"] == data


def test_large_ones_are_one_base64() -> None:
    assert encode(Tensor("UINT8", np.zeros(64, np.uint8))).keys() == {"datatype", "shape", "data"}
    assert encode(Tensor("UINT8", np.zeros(65, np.uint8))).keys() == {"datatype", "shape", "base64"}


GOOD = {"datatype": "FP32", "shape": [1], "data": [1]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "no tensor"),
        (GOOD | {"shape": 1}, "no tensor"),
        (GOOD | {"base64": ""}, "exactly one"),
        ({"datatype": "FP32", "shape": [1]}, "exactly one"),
        (GOOD | {"dat": 1}, "unknown key 'dat'"),
        (GOOD | {"datatype": "FP33"}, "unknown datatype"),
        (GOOD | {"datatype": 1}, "datatype"),
        (GOOD | {"data": [1, 2]}, "2 elements"),
        (GOOD | {"data": ["1"]}, "numbers"),
        ({"datatype": "FP32", "shape": [1], "base64": "AAA"}, "base64"),
        ({"datatype": "FP32", "shape": [1], "base64": 5}, "base64"),
        ({"datatype": "FP32", "shape": [2], "base64": "AAAAAA=="}, "4 bytes"),
    ],
)
def test_what_is_no_tensor_is_told(value: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=f"line 7: input 'x'.*{words}"):
        decode(value, "line 7: input 'x'")
