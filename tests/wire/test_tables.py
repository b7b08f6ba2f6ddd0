"""Tables as CSV, and arrays as npy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import npy, tables

X = TensorSpec("x", "FP32", (-1, 3))
I = TensorSpec("i", "INT64", (-1,))  # noqa: E741
S = TensorSpec("s", "BYTES", (-1,))
B = TensorSpec("b", "BOOL", (-1,))


@pytest.mark.parametrize(
    ("text", "specs", "header", "name", "values"),
    [
        ("1,2,3\n4,5.5,6\n", (X,), None, "x", [[1, 2, 3], [4, 5.5, 6]]),
        ("a,b,c\r\n1,2,3\r\n", (X,), None, "x", [[1, 2, 3]]),
        ("a,b,c\n1,2,3", (X,), True, "x", [[1, 2, 3]]),
        ("1,2,3\n", (X,), True, "x", []),
        ("1,2,3\n", (X,), False, "x", [[1, 2, 3]]),
        ("\ufeff1,2,3", (X,), None, "x", [[1, 2, 3]]),
        ("i,s\n1,a\n2,\"b,\nc\"\n", (S, I), None, "s", [b"a", b"b,\nc"]),
        ("1,a\n2,b\n", (I, S), None, "i", [1, 2]),
        ("9223372036854775807\n", (I,), None, "i", [2**63 - 1]),
        ("2.0\n", (I,), None, "i", [2]),
        ("s\nb\n", (S,), None, "s", [b"b"]),
        ("q\nb\n", (S,), None, "s", [b"q", b"b"]),
        ("True\nfalse\n1\n", (B,), None, "b", [True, False, True]),
        ("1,x\n2,y\n", (), False, "1", [b"x", b"y"]),
        ("a,x\n2,y\n", (), None, "x", [b"y"]),  # without a signature a line that has a text is names
        ("a,b\n1,true\n", (), None, "b", [True]),
    ],
)  # fmt: skip
def test_a_table_becomes_the_inputs(text: str, specs: Any, header: bool | None, name: str, values: Any) -> None:
    assert tables.decode(text.encode(), specs, header=header)[name].array.tolist() == values


def test_an_empty_cell_among_floats_is_nan() -> None:
    found = tables.decode(b"1,,3\nnan,2,inf\n", (X,), header=False)["x"].array
    assert np.isnan(found[[0, 1], [1, 0]]).all()
    assert np.isinf(found[1, 2])


@pytest.mark.parametrize(
    ("text", "specs", "says"),
    [
        (b"", (X,), "no lines"),
        (b"\xff\xfe", (X,), "UTF-8"),
        (b'"a,b\n', (X,), "CSV"),
        (b"1,2,3\n4,5\n", (X,), "row 1"),
        (b"1,2,3\n4,5,b\n", (X,), "numbers"),
        (b"1\n1.5\n", (I,), "integers"),
        (b"1\n9223372036854775808\n", (I,), "range"),
        (b"1\n1_000\n", (I,), "integers"),
        (b"1\n" + b"9" * 5000, (I,), "integers"),
        (b"1\n\n2\nx\n", (I,), "integers"),
        (b"true\nmaybe\n", (B,), "true or false"),
        (b"a,a\n1,2\n", (), "one name"),
    ],
)
def test_what_is_no_table_is_refused(text: bytes, specs: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        tables.decode(text, specs, header=None)


def test_an_answer_is_a_table_where_it_has_rows() -> None:
    assert tables.encode({"y": Tensor("FP32", np.array([[1.5, 2]], np.float32))}) == b"1.5,2.0\n"
    assert tables.encode({"y": Tensor("BYTES", np.array([b"a", b"b,c"], object))}) == b'a\n"b,c"\n'
    assert tables.encode({"y": Tensor("FP32", np.zeros((1, 1, 1), np.float32))}) is None
    assert tables.encode({name: Tensor("FP32", np.zeros(1, np.float32)) for name in "ab"}) is None


# ---------------------------------------------------------------- npy
def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 3)),
        np.float64(3),
        np.array(["a", "bc"]),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
    ],
)
def test_an_array_comes_as_it_was(array: Any) -> None:
    found = npy.decode(saved(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"PK\x03\x04",
        saved(np.zeros(3))[:-1],
        saved(np.zeros(3)).replace(b" )", b"5)").replace(b"     \n", b"   ) \n"),
        saved(np.zeros(3)).replace(b"'<f8'", b"'?<8'"),
        saved(np.zeros(3)) + b"x",
        saved(np.array([{}], object), allow_pickle=True),
        saved(np.zeros(2, [("a", "f4")])),
        saved(np.zeros(3)).replace(b"(3,)", b"(1<<60,)"),
        saved(np.zeros((3, 1))).replace(b"(3, 1)", b"(-3,1)"),
        saved(np.zeros(3)).replace(b"(3,), }     ", b"(99999999,)}"),
    ],
)
def test_no_array_and_nothing_allocated(body: bytes) -> None:
    with pytest.raises(InputError, match="npy"):
        npy.decode(body)


def test_answers_as_arrays() -> None:
    tensor = Tensor("FP32", np.ones((2, 2), np.float32))
    assert np.array_equal(np.load(io.BytesIO(npy.encode(tensor) or b"")), tensor.array)
    assert npy.encode(Tensor("BYTES", np.array([b"a"], object))) is None
