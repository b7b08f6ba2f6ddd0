"""Rows and columns without datatypes: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import instances

X = TensorSpec("x", "FP32", (-1, 3))
S = TensorSpec("s", "BYTES", (-1,))
ONE = TensorSpec("one", "INT64", (-1, 1))
IMAGE = TensorSpec("image", "UINT8", (-1, 2, 2))


def alike(found: dict[str, Tensor], name: str, datatype: str, values: Any) -> bool:
    tensor = found[name]
    return tensor.datatype == datatype and tensor.array.tolist() == values


@pytest.mark.parametrize(
    ("rows", "specs", "name", "datatype", "values"),
    [
        ([[1, 2, 3], [4.5, 5, 6]], (X,), "x", "FP32", [[1, 2, 3], [4.5, 5, 6]]),
        ([{"x": [1, 2, 3]}], (X,), "x", "FP32", [[1, 2, 3]]),
        ([{"x": [1, 2, 3], "s": "a"}, {"s": "b", "x": [4, 5, 6]}], (X, S), "s", "BYTES", [b"a", b"b"]),
        ([{"b64": "/w=="}, "ü"], (S,), "s", "BYTES", [b"\xff", "ü".encode()]),
        ([{"s": {"b64": "AAA="}}], (S,), "s", "BYTES", [b"\0\0"]),
        ([1, 2], (ONE,), "one", "INT64", [[1], [2]]),
        ([{"one": 2**63 - 1}], (ONE,), "one", "INT64", [[2**63 - 1]]),
        ([[[1, 2], [3, 4]]], (IMAGE,), "image", "UINT8", [[[1, 2], [3, 4]]]),
        ([1, 2], (), "input", "INT64", [1, 2]),
        ([2**64 - 1], (), "input", "UINT64", [2**64 - 1]),
        ([1, 2.5], (), "input", "FP64", [1.0, 2.5]),
        ([True, False], (), "input", "BOOL", [True, False]),
        (["a"], (), "input", "BYTES", [b"a"]),
    ],
)
def test_rows(rows: Any, specs: Any, name: str, datatype: str, values: Any) -> None:
    assert alike(instances.decode_rows(rows, specs), name, datatype, values)


def test_no_rows_have_the_shape_of_the_signature() -> None:
    assert instances.decode_rows([], (X,))["x"].shape == (0, 3)
    assert instances.decode_rows([], (IMAGE,))["image"].shape == (0, 2, 2)


def test_null_among_floats_is_nan() -> None:
    assert np.isnan(instances.decode_rows([[1, None, 3]], (X,))["x"].array[0, 1])


@pytest.mark.parametrize(
    ("value", "specs", "name", "values"),
    [
        ([[1, 2, 3]], (X,), "x", [[1, 2, 3]]),
        ({"x": [[1, 2, 3]], "s": ["a"]}, (X, S), "x", [[1, 2, 3]]),
        ({"b64": "YQ=="}, (TensorSpec("s", "BYTES", ()),), "s", b"a"),
        (5, (), "input", 5),
    ],
)
def test_columns(value: Any, specs: Any, name: str, values: Any) -> None:
    assert instances.decode_columns(value, specs)[name].array.tolist() == values


@pytest.mark.parametrize(
    ("names", "rows", "specs", "name", "values"),
    [
        (["a", "b", "c"], [[1, 2, 3]], (X,), "x", [[1, 2, 3]]),  # columns of the one input
        (["x"], [[[1, 2, 3]]], (X,), "x", [[1, 2, 3]]),  # the input as a column of lists
        (["one", "s"], [[1, "a"], [2, "b"]], (S, ONE), "one", [[1], [2]]),
        (["s"], [["a"]], (S,), "s", [b"a"]),
        (["a", "b"], [[1, "u"]], (), "b", [b"u"]),
    ],
)
def test_tables(names: list[str], rows: list[Any], specs: Any, name: str, values: Any) -> None:
    assert instances.decode_table(names, rows, specs)[name].array.tolist() == values


@pytest.mark.parametrize(
    ("rows", "specs", "says"),
    [
        ({"x": 1}, (X,), "list"),
        ("abc", (X,), "list"),
        ([[1, 2, 3], [4, 5]], (X,), "different lengths"),
        ([[1, 2, 3], 4], (X,), "different lengths"),
        ([[1, "2", 3]], (X,), "numbers"),
        ([{"x": [1, 2, 3]}, [1, 2, 3]], (X,), "row 1"),
        ([{"x": [1, 2, 3]}, {"y": [1, 2, 3]}], (X,), "row 1"),
        ([[1, 2, 3]], (X, S), "x, s"),
        ([1.5], (ONE,), "integers"),
        ([2**63], (ONE,), "range"),
        ([{"b64": "?"}], (S,), "base64"),
        ([{"b64": 7}], (S,), "base64"),
        ([1], (S,), "texts"),
        (["a", 1], (), "no array"),
        ([None, True], (), "no array"),
        ([[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]], (), "different lengths, or too many"),
    ],
)
def test_what_makes_no_arrays_is_refused(rows: Any, specs: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        instances.decode_rows(rows, specs)


def test_a_table_with_a_short_row_is_refused() -> None:
    with pytest.raises(InputError, match="row 1"):
        instances.decode_table(["a", "b"], [[1, 2], [1]], ())


def outputs(**arrays: Any) -> dict[str, Tensor]:
    kinds = {"float32": "FP32", "int64": "INT64", "object": "BYTES", "uint16": "BF16"}
    return {name: Tensor(kinds[array.dtype.name], array) for name, array in arrays.items()}


def test_answers_by_row_and_by_column() -> None:
    one = outputs(y=np.array([[1, 2]], np.float32))
    assert instances.encode_rows(one) == instances.encode_columns(one) == [[1, 2]]
    two = outputs(y=np.array([[1], [2]], np.float32), z=np.array([3, 4]))
    assert instances.encode_rows(two) == [{"y": [1], "z": 3}, {"y": [2], "z": 4}]
    assert instances.encode_columns(two) == {"y": [[1], [2]], "z": [3, 4]}
    uneven = outputs(y=np.array([1, 2], np.float32), z=np.array(3))
    assert instances.encode_rows(uneven) == {"y": [1, 2], "z": 3}


def test_bytes_are_text_where_they_can_be_and_bfloat16_is_numbers() -> None:
    assert instances.encode_rows(outputs(y=np.array([b"a", b"\xff"], object))) == ["a", {"b64": "/w=="}]
    assert instances.encode_rows(outputs(y=np.array([[0x3F80]], np.uint16))) == [[1.0]]
