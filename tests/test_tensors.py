"""Tensors: every way in, every way out, and what is refused. No servers here; tests/wire has the messages."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import (
    DATATYPES,
    MAX_RANK,
    Kind,
    Tensor,
    datatype_of,
    from_bytes,
    from_json,
    matches,
    storage,
    take,
    to_bytes,
    to_json,
)

torch = pytest.importorskip("torch")

NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
TORCH = {name: getattr(torch, dtype) for name, dtype in {**NUMPY, "BF16": "bfloat16"}.items()}
SIZES = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8}
SIZES |= {"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
EMPTY = [(0,), (0, 4), (4, 0), (1, 0, 3)]
CPU = Kind(torch.device("cpu"))


def taken(value: Any, datatype: str, shape: tuple[int, ...] | None = None) -> Any:
    """The array of `take`, for a signature of any shape of the value's rank unless one is given."""
    rank = len(getattr(value, "shape", ())) if shape is None else 0
    return take(value, TensorSpec("x", datatype, (-1,) * rank if shape is None else shape), where="digits@3").array


def refused(value: Any, datatype: str, shape: tuple[int, ...] = ()) -> InputError:
    with pytest.raises(InputError) as caught:
        take(value, TensorSpec("x", datatype, shape), where="digits@3")
    assert caught.value.message.startswith(f"input 'x' of digits@3 wants {datatype} {list(shape)} and was given ")
    return caught.value


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


# ---------------------------------------------------------------- the table
def test_the_table_has_every_datatype_of_the_protocol_and_its_size() -> None:
    assert {name: kind.size for name, kind in DATATYPES.items()} == {**SIZES, "BYTES": None}
    assert all(kind.name == name for name, kind in DATATYPES.items())
    assert {name: kind.dtype.name for name, kind in DATATYPES.items() if kind.plain} == NUMPY
    assert DATATYPES["BF16"].dtype == np.uint16
    assert DATATYPES["BYTES"].dtype == object


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DATATYPES["FP8"] = DATATYPES["FP16"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        DATATYPES["FP16"].size = 1  # type: ignore[misc]


@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_each_datatype_has_one_numpy_and_one_torch_dtype(datatype: str, dtype: str) -> None:
    assert datatype_of(np.zeros(1, dtype)) == datatype
    assert datatype_of(np.zeros(1, np.dtype(dtype).newbyteorder(">"))) == datatype
    assert datatype_of(torch.zeros(1, dtype=TORCH[datatype])) == datatype
    assert datatype_of(Tensor(datatype, np.zeros(1, dtype))) == datatype


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([1], "INT64"),
        (1, "INT64"),
        ([1, 2.5], "FP64"),
        ([], "FP64"),
        ([[True], [False]], "BOOL"),
        ("text", "BYTES"),
        (["text", b"bytes"], "BYTES"),
        (np.array(["text"]), "BYTES"),
        (np.array([b"x"], object), "BYTES"),
        (np.float32(1), "FP32"),
        (torch.zeros(1, dtype=torch.bfloat16), "BF16"),
    ],
)
def test_python_values_have_the_datatype_that_numpy_reads(value: Any, datatype: str) -> None:
    assert datatype_of(value) == datatype


@pytest.mark.parametrize(
    "value",
    [1j, np.zeros(1, "complex64"), torch.zeros(1, dtype=torch.complex64), np.zeros(1, "M8[D]"), np.zeros(1, "i4,f4")],
)
def test_what_the_protocol_has_no_datatype_for_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="no datatype of the protocol"):
        datatype_of(value)


def test_ragged_lists_have_no_datatype() -> None:
    with pytest.raises(InputError, match="list can't be read as an array"):
        datatype_of([[1], [1, 2]])


# ---------------------------------------------------------------- a Tensor
def test_a_tensor_shows_its_form_and_not_its_contents() -> None:
    tensor = Tensor("FP32", np.full((2, 3), 7.125, np.float32))
    assert repr(tensor) == "<Tensor FP32 [2, 3]>"
    assert (tensor.shape, tensor.nbytes) == ((2, 3), 24)
    assert Tensor("BF16", torch.zeros(3, dtype=torch.bfloat16)).nbytes == 6
    assert Tensor("BYTES", np.array([b"abc", b""], object)).nbytes == 4 + 3 + 4
    assert Tensor("FP64", np.float64(1)).nbytes == 8


def test_a_tensor_goes_in_as_it_is() -> None:
    array = np.zeros((2, 3), np.float32)
    assert taken(Tensor("FP32", array), "FP32", (-1, 3)) is array
    assert "an INT8 tensor" in refused(Tensor("INT8", np.zeros(2, np.int8)), "FP32", (2,)).message
    assert "shape [2, 3]" in refused(Tensor("FP32", array), "FP32", (-1, 4)).message


# ---------------------------------------------------------------- shapes
@pytest.mark.parametrize(
    ("wanted", "came", "fits"),
    [
        ((), (), True),
        ((), (1,), False),
        ((1,), (), False),
        ((-1,), (0,), True),
        ((-1,), (5,), True),
        ((3,), (3,), True),
        ((3,), (4,), False),
        ((-1, 3), (7, 3), True),
        ((-1, 3), (3,), False),
        ((-1, 3), (7, 4), False),
        ((2, 3), (1, 3), False),
        ((-1, -1), (7, 9), True),
        ((2, -1, 3), (2, 9, 3), True),
        ((2, -1, 3), (1, 9, 3), False),
        ((2, -1, 3), (2, 9, 4), False),
        ((-1, 3), (7, 3, 1), False),
        ((0,), (0,), True),
        ((0,), (1,), False),
    ],
)
def test_a_shape_fits_where_each_axis_is_free_or_equal(
    wanted: tuple[int, ...], came: tuple[int, ...], fits: bool
) -> None:
    assert matches(TensorSpec("x", "FP32", wanted), came) is fits


sizes = st.lists(st.integers(-1, 3), max_size=4).map(tuple)


@given(sizes, st.lists(st.integers(0, 3), max_size=4).map(tuple))
def test_matching_is_the_rule_axis_by_axis(wanted: tuple[int, ...], came: tuple[int, ...]) -> None:
    rule = len(wanted) == len(came) and all(w in (-1, c) for w, c in zip(wanted, came, strict=False))
    assert matches(TensorSpec("x", "FP32", wanted), came) is rule


# ---------------------------------------------------------------- in: numpy
@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_an_array_that_is_right_goes_in_without_a_copy(datatype: str, dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    assert taken(array, datatype) is array
    array.flags.writeable = False
    assert taken(array, datatype) is array


@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_an_array_of_any_other_dtype_is_refused(datatype: str, dtype: str) -> None:
    for other in {*NUMPY.values(), "complex64", "M8[s]", "object", "S1", "U1", "V4"} - {dtype}:
        error = refused(np.zeros(2, other), datatype, (2,))
        assert f"{np.dtype(other)} array" in error.message
        assert error.hint == f"Convert it: x.astype(np.{dtype})"


@pytest.mark.parametrize("order", [">", "<", "="])
@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_byte_order_is_taken_for_what_it_says(datatype: str, dtype: str, order: Any) -> None:
    numbers = np.array([[0, 1, 100], [1, 0, 7]]).astype(dtype)
    array = taken(numbers.astype(np.dtype(dtype).newbyteorder(order)), datatype)
    assert array.dtype == DATATYPES[datatype].dtype
    assert np.array_equal(array, numbers)


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "FP16", "FP32", "BF16", "BYTES"])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[:, ::2],
        lambda a: a.T,
        lambda a: a[1:2],
        lambda a: np.broadcast_to(a[:1], (3, 4)),
        lambda a: np.asfortranarray(a),
    ],
)
def test_any_view_goes_in_as_the_values_it_shows(datatype: str, view: Any) -> None:
    base = np.arange(12).reshape(3, 4) % 2
    if datatype == "BYTES":
        shown = view(np.array([[f"{n}".encode() for n in row] for row in base], object))
    else:
        shown = view(base.astype(NUMPY.get(datatype, "float32")))
    array = taken(shown, datatype)
    assert array.flags.c_contiguous
    assert np.array_equal(CPU.numpy().give(Tensor(datatype, array)), shown)


def test_a_scalar_stays_without_axes() -> None:
    for value in (np.array(1.5, np.float32), np.array(1.5, ">f4"), np.float32(1.5), np.float64(1.5), 1.5):
        array = taken(value, "FP32", ())
        assert (array.shape, array.dtype, float(array)) == ((), np.float32, 1.5)
    for value in (np.array(1.5, np.float32), 1.5):
        assert taken(value, "BF16", ()).shape == ()
    assert taken(np.bool_(True), "BOOL", ()).item() is True
    assert taken(np.int8(-3), "INT64", ()).item() == -3
    assert taken(np.array(b"x", object), "BYTES", ()).item() == b"x"
    assert taken(torch.tensor(1.5), "FP32", ()).shape == ()


def test_a_scalar_of_numpy_that_does_not_fit_is_refused() -> None:
    assert "out of range" in refused(np.int16(300), "UINT8").message
    assert "aren't integers" in refused(np.float32(1.5), "INT32").message
    assert "complex" in refused(np.complex64(1), "FP32").message
    refused(np.datetime64("2020"), "INT64")
    refused(np.longdouble(1), "FP32")


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BYTES"])
def test_a_masked_array_is_refused(datatype: str) -> None:
    error = refused(np.ma.array([1.0, 2.0], mask=[False, True], dtype=np.float32), datatype, (2,))
    assert "a masked array" in error.message
    assert error.hint is not None
    assert "x.filled(0)" in error.hint


def test_subclasses_of_arrays_go_in_as_arrays(tmp_path: Any) -> None:
    class Mine(np.ndarray):
        pass

    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    for value in (mapped, np.zeros((2, 3), np.float32).view(Mine)):
        array = taken(value, "FP32")
        assert type(array) is np.ndarray
        assert np.shares_memory(array, value)


def test_an_array_out_of_alignment_goes_in_and_out() -> None:
    array = np.frombuffer(b"-" + struct.pack("<3f", 1, 2, 3), np.uint8)[1:].view(np.float32)
    assert not array.flags.aligned
    tensor = Tensor("FP32", taken(array, "FP32"))
    assert bytes(to_bytes(tensor)) == struct.pack("<3f", 1, 2, 3)
    assert CPU.give(tensor).tolist() == [1, 2, 3]


# ---------------------------------------------------------------- in: strings
def test_text_goes_in_as_utf_8_and_bytes_as_they_are() -> None:
    for value in (["é", b"\xff"], ("é", b"\xff"), np.array(["é", b"\xff"], object)):
        assert taken(value, "BYTES", (2,)).tolist() == ["é".encode(), b"\xff"]
    assert taken("é", "BYTES", ()).item() == "é".encode()
    assert taken(np.array([["a", "b"]]), "BYTES").tolist() == [[b"a", b"b"]]
    assert taken(np.str_("a"), "BYTES", ()).item() == b"a"
    assert taken(np.array(["a"], np.dtypes.StringDType()), "BYTES").tolist() == [b"a"]
    assert all(type(element) is bytes for element in taken([np.bytes_(b"a"), np.str_("b")], "BYTES", (2,)))


@pytest.mark.parametrize(
    ("value", "came"),
    [
        ([1], "an int among its elements"),
        ([None], "a NoneType among its elements"),
        ([["a"], [b"b", 1]], "ragged lists"),
        (["a", 1.5], "a float among its elements"),
        (np.array(["a", 1], object), "an int among its elements"),
        (np.zeros(2), "a float64 array"),
        ("\ud800", "text that isn't Unicode"),
        (np.array(["\ud800"], object), "text that isn't Unicode"),
        (torch.zeros(1), "a torch.float32 tensor"),
    ],
)
def test_what_is_no_text_is_refused_for_strings(value: Any, came: str) -> None:
    assert came in refused(value, "BYTES", (-1,)).message


def test_text_is_refused_for_numbers() -> None:
    for value in ("1", b"1", ["1"], [[b"1"]]):
        assert "aren't" in refused(value, "FP32").message
        refused(value, "INT8")
        refused(value, "BOOL")


# ---------------------------------------------------------------- in: lists and numbers
def test_lists_of_numbers_go_in() -> None:
    assert taken([[1, 2], [3, 4]], "INT16", (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert taken(([1, 2], (3, 4)), "INT16", (-1, 2)).tolist() == [[1, 2], [3, 4]]
    assert taken([1.0, 2], "INT8", (2,)).tolist() == [1, 2]
    assert taken([0.1], "FP32", (1,)).tolist() == [float(np.float32(0.1))]
    assert taken([True, 0, 1], "BOOL", (3,)).tolist() == [True, False, True]
    assert taken([2**64 - 1], "UINT64", (1,)).tolist() == [2**64 - 1]
    assert taken([-(2**63)], "INT64", (1,)).tolist() == [-(2**63)]
    assert taken([math.inf, -math.inf], "FP16", (2,)).tolist() == [math.inf, -math.inf]
    assert taken([2**24, 2.0], "FP32", (2,)).tolist() == [2**24, 2]
    assert taken([np.float64(1), np.int8(2), 3], "FP32", (3,)).tolist() == [1, 2, 3]


def test_a_list_of_arrays_is_stacked() -> None:
    rows = [np.array([1, 2], np.float32), np.array([3, 4], ">f4").astype("f4")]
    assert taken(rows, "FP32", (-1, 2)).tolist() == [[1, 2], [3, 4]]
    assert taken([rows, rows], "FP32", (2, 2, 2)).tolist() == [[[1, 2], [3, 4]]] * 2
    assert "float64 array" in refused([np.zeros(2)], "FP32", (1, 2)).message
    assert "different shapes" in refused([np.zeros(2), np.zeros(3)], "FP64", (2, 2)).message
    assert "different dtypes" in refused([np.zeros(2), np.zeros(2, int)], "FP64", (2, 2)).message
    assert "ragged lists" in refused([np.zeros(2), [0, 0]], "FP64", (2, 2)).message
    refused([np.ma.array([1.0], mask=[True])], "FP64", (1, 1))


def test_a_list_of_torch_tensors_is_refused_with_the_way_to_join_them() -> None:
    error = refused([torch.zeros(2), torch.zeros(2)], "FP32", (2, 2))
    assert error.hint == "Join them: torch.stack(x)"


@pytest.mark.parametrize("value", [[[1, 2], [3]], [[1], 2], [[[1]], [[1], [2]]], [[], [1]]])
@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BF16", "BOOL", "BYTES"])
def test_ragged_lists_are_refused(value: Any, datatype: str) -> None:
    assert "ragged lists" in refused(value, datatype, (-1, -1)).message


@pytest.mark.parametrize(
    ("value", "datatype", "why"),
    [
        ([256], "UINT8", "out of range"),
        ([-1], "UINT64", "out of range"),
        ([2**63], "INT64", "out of range"),
        ([2**64], "UINT64", "out of range"),
        ([10**400], "INT64", "out of range"),
        ([10**400], "FP64", "out of range"),
        ([10**400], "BF16", "out of range"),
        ([65520.0], "FP16", "out of range"),
        ([3.5e38], "FP32", "out of range"),
        ([3.5e38], "BF16", "out of range"),
        ([1.5], "INT32", "aren't integers"),
        ([math.nan], "INT32", "aren't integers"),
        ([math.inf], "INT32", "aren't integers"),
        ([2.0**53 + 2], "INT64", "aren't integers"),
        ([2**24 + 1], "FP32", "an integer that FP32 can't hold exactly"),
        ([2**53 + 1], "FP64", "an integer that FP64 can't hold exactly"),
        ([2049], "FP16", "an integer that FP16 can't hold exactly"),
        ([257], "BF16", "an integer that BF16 can't hold exactly"),
        ([True], "INT32", "aren't integers"),
        ([True], "FP32", "aren't numbers"),
        ([None], "FP32", "aren't numbers"),
        ([1j], "FP32", "aren't numbers"),
        ([2], "BOOL", "aren't true or false"),
        ([1.0], "BOOL", "aren't true or false"),
        ([{}], "FP64", "aren't numbers"),
    ],
)
def test_a_number_that_would_be_changed_is_refused(value: Any, datatype: str, why: str) -> None:
    assert why in refused(value, datatype, (1,)).message.partition("a list with ")[2]
    if not isinstance(value[0], complex | dict | type(None)):  # alone, these aren't even looked at
        assert why in refused(value[0], datatype).message


def test_lists_nested_too_deep_are_refused_before_they_are_followed() -> None:
    deep: Any = 1.0
    for _ in range(MAX_RANK):
        deep = [deep]
    assert taken(deep, "FP32", (1,) * MAX_RANK).shape == (1,) * MAX_RANK
    assert f"more than {MAX_RANK} deep" in refused([deep], "FP32").message
    endless: list[Any] = []
    endless.append(endless)
    assert f"more than {MAX_RANK} deep" in refused(endless, "FP32").message


@pytest.mark.parametrize("datatype", DATATYPES)
def test_empty_lists_have_the_shape_of_their_nesting(datatype: str) -> None:
    assert taken([], datatype, (-1,)).shape == (0,)
    assert taken([[], []], datatype, (-1, 0)).shape == (2, 0)
    assert "shape [0]" in refused([], datatype, (-1, 4)).message


# ---------------------------------------------------------------- in: torch
@pytest.mark.parametrize(("datatype", "dtype"), TORCH.items())
def test_a_torch_tensor_stays_one_and_shares_its_memory(datatype: str, dtype: Any) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    array = taken(tensor, datatype)
    assert isinstance(array, torch.Tensor)
    assert array.data_ptr() == tensor.data_ptr()
    for other in set(TORCH.values()) - {dtype}:
        error = refused(torch.zeros(2, dtype=other), datatype, (2,))
        assert f"a {other} tensor" in error.message
        assert error.hint == f"Convert it: x.to({dtype})"


def test_gradients_stay_with_the_caller() -> None:
    for tensor in (
        torch.ones(2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2).requires_grad_() * 2,
    ):
        array = taken(tensor, "FP32")
        assert not array.requires_grad
        assert array.data_ptr() == tensor.data_ptr()
        assert tensor.requires_grad
        assert storage(Tensor("FP32", tensor)).tolist() == tensor.tolist()


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "INT64", "BOOL"])
@pytest.mark.parametrize(
    "view", [lambda t: t.T, lambda t: t[:, ::2], lambda t: t[:1].expand(3, 4), lambda t: t[1], lambda t: t[1, 1]]
)
def test_any_torch_view_goes_out_as_the_values_it_shows(datatype: str, view: Any) -> None:
    shown = view((torch.arange(12).reshape(3, 4) % 2).to(TORCH[datatype]))
    tensor = Tensor(datatype, taken(shown, datatype))
    assert storage(tensor).flags.c_contiguous
    assert CPU.give(from_bytes(datatype, tensor.shape, to_bytes(tensor), "x")).tolist() == shown.tolist()


def test_lazy_negation_and_conjugation_are_carried_out() -> None:
    lazy = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert lazy.is_neg()
    tensor = Tensor("FP32", taken(lazy, "FP32"))
    assert storage(tensor).tolist() == [-2, 4]
    assert CPU.give(tensor).tolist() == [-2, 4]
    assert "complex64" in refused(torch.tensor([1j]).conj(), "FP32", (1,)).message


@pytest.mark.parametrize(
    ("tensor", "came"),
    [
        (lambda: torch.eye(2).to_sparse(), "torch.sparse_coo tensor"),
        (lambda: torch.eye(2).to_mkldnn(), "torch._mkldnn tensor"),
        (lambda: torch.zeros(2, 2, device="meta"), "tensor on meta"),
    ],
)
def test_a_torch_tensor_without_dense_memory_is_refused(tensor: Any, came: str) -> None:
    assert came in refused(tensor(), "FP32", (2, 2)).message


# ---------------------------------------------------------------- in: others
class OnlyArray:
    def __init__(self, array: Any) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if isinstance(self._array, BaseException):
            raise self._array
        return self._array


class OnlyDLPack:
    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self._array, BaseException):
            raise self._array
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return (1, 0) if isinstance(self._array, BaseException) else self._array.__dlpack_device__()


@pytest.mark.parametrize("wrapper", [OnlyArray, OnlyDLPack])
@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_what_has_only_an_array_protocol_goes_in_without_a_copy(wrapper: Any, datatype: str, dtype: str) -> None:
    array = np.array([[0, 1, 1]], dtype)
    came = taken(wrapper(array), datatype, (-1, 3))
    assert type(came) is np.ndarray
    assert np.array_equal(came, array)
    assert np.shares_memory(came, array)


def test_an_array_protocol_is_checked_like_an_array() -> None:
    for wrapper in (OnlyArray, OnlyDLPack):
        assert "a float64 array" in refused(wrapper(np.zeros(2)), "FP32", (2,)).message
        assert "shape [2]" in refused(wrapper(np.zeros(2, np.float32)), "FP32", (3,)).message
        assert taken(wrapper(np.arange(6, dtype=np.float32)[::-2]), "FP32", (3,)).tolist() == [5, 3, 1]
        assert taken(wrapper(np.array(2.5, np.float32)), "FP32", ()).item() == 2.5
    assert "masked" in refused(np.ma.array([1.0]), "FP64", (1,)).message
    assert taken(OnlyArray(np.array(["a"], object)), "BYTES", (1,)).tolist() == [b"a"]
    assert taken(OnlyDLPack(torch.arange(3)), "INT64", (3,)).tolist() == [0, 1, 2]


class NoDevice:
    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("must be asked for its device first")


def test_a_picture_says_how_it_becomes_an_array() -> None:
    image = pytest.importorskip("PIL.Image").new("L", (2, 2))
    assert "np.asarray(x)" in str(refused(image, "FP32", (2, 2)))


@pytest.mark.parametrize(
    "value",
    [
        OnlyArray(RuntimeError("token=abc")),
        OnlyArray("no array"),
        OnlyArray(MemoryError()),
        OnlyDLPack(BufferError("token=abc")),
        OnlyDLPack(torch.zeros(1, dtype=torch.bfloat16)),
        OnlyDLPack(torch.zeros(1, requires_grad=True)),
        NoDevice(),
    ],
)
def test_an_array_protocol_that_fails_is_an_input_error(value: Any) -> None:
    error = refused(value, "FP32", (1,))
    assert f"{kind_of(value)} that can't become an array" in error.message
    assert "token" not in str(error)
    assert error.__suppress_context__


def test_an_interrupt_inside_of_an_array_protocol_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        taken(OnlyArray(KeyboardInterrupt()), "FP32", ())


@pytest.mark.parametrize("value", [None, {}, {"a": 1}, object(), iter([1]), {1, 2}, 1j, bytearray(b"x"), range(2)])
def test_what_is_no_array_is_refused_by_its_type(value: Any) -> None:
    error = refused(value, "FP32", (1,))
    assert f"{kind_of(value)}" in error.message
    assert error.hint is not None


# ---------------------------------------------------------------- what the messages say
def test_a_message_names_the_input_what_it_wants_what_came_and_what_to_do() -> None:
    error = refused(np.zeros((2, 28, 28)), "FP32", (-1, 28, 28))
    assert error.message == "input 'x' of digits@3 wants FP32 [-1, 28, 28] and was given a float64 array"
    assert error.hint == "Convert it: x.astype(np.float32)"
    error = refused(np.zeros((2, 3), np.float32), "FP32", (-1, 4))
    assert error.message == "input 'x' of digits@3 wants FP32 [-1, 4] and was given shape [2, 3]"
    assert error.hint is None


def test_one_row_without_its_batch_axis_is_told_how_to_get_one() -> None:
    for row in (np.zeros(4, np.float32), torch.zeros(4), [0.0] * 4):
        hint = refused(row, "FP32", (-1, 4)).hint
        assert hint is not None
        assert "x[None]" in hint
    assert refused(np.zeros(5, np.float32), "FP32", (-1, 4)).hint is None


def test_no_message_holds_what_was_in_the_array() -> None:
    for value in (["31337", 31337], [31337.5], np.array([31337.5]), np.array(["31337"]), OnlyArray("31337")):
        error = refused(value, "UINT8", (1,))
        assert "31337" not in str(error)


def test_an_unknown_datatype_of_a_signature_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'x' of digits@3 has the unknown datatype 'FP8'"):
        take(np.zeros(1), TensorSpec("x", "FP8", (1,)), where="digits@3")


# ---------------------------------------------------------------- BF16
def bf16(*numbers: float) -> Any:
    return taken(np.array(numbers, np.float32), "BF16").tolist()


def float32(word: int) -> float:
    return float(np.array(word, np.uint32).view(np.float32))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (0x3F800000, 0x3F80),  # 1
        (0x3F807FFF, 0x3F80),  # below half way
        (0x3F808000, 0x3F80),  # half way, even below
        (0x3F808001, 0x3F81),  # above half way
        (0x3F818000, 0x3F82),  # half way, even above
        (0xBF818000, 0xBF82),  # the same, negative
        (0x3FFF8000, 0x4000),  # a carry into the exponent
        (0x00000000, 0x0000),
        (0x80000000, 0x8000),  # -0
        (0x00000001, 0x0000),  # the least subnormal
        (0x00008000, 0x0000),  # half of the least subnormal of BF16
        (0x00008001, 0x0001),
        (0x00018000, 0x0002),
        (0x007F8000, 0x0080),  # from subnormal to normal
        (0x807FFFFF, 0x8080),
        (0x7F7F0000, 0x7F7F),  # the greatest
        (0x7F7F8000, 0x7F80),  # IEEE 754: half way past the greatest is infinity
        (0x7F800000, 0x7F80),
        (0xFF800000, 0xFF80),
    ],
)
def test_float32_is_rounded_to_the_nearest_bf16_and_ties_go_to_even(word: int, wanted: int) -> None:
    array = np.array([word], np.uint32).view(np.float32)
    assert taken(array, "BF16").tolist() == [wanted]
    assert taken(array[0:1].reshape(()), "BF16").item() == wanted
    assert taken(array.astype(">f4"), "BF16").tolist() == [wanted]
    theirs = torch.from_numpy(array).to(torch.bfloat16)
    assert theirs.view(torch.int16).numpy().view(np.uint16).tolist() == [wanted]


@given(st.integers(0, 2**32 - 1))
def test_rounding_to_bf16_is_torchs(word: int) -> None:
    array = np.array([word], np.uint32).view(np.float32)
    ours = Tensor("BF16", taken(array, "BF16"))
    theirs = torch.from_numpy(array).to(torch.bfloat16).float().numpy()
    assert np.array_equal(Kind.numpy().give(ours), theirs, equal_nan=True)


@pytest.mark.parametrize("word", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F80FFFF])
def test_a_nan_stays_a_nan_with_its_sign_in_bf16(word: int) -> None:
    for shape in ((1,), ()):
        array = np.array(word, np.uint32).view(np.float32).reshape(shape)
        (came,) = taken(array, "BF16").ravel().tolist()
        assert came & 0x7F80 == 0x7F80
        assert came & 0x007F
        assert came >> 15 == word >> 31


def test_python_floats_go_into_bf16_and_come_out_as_float32() -> None:
    tensor = Tensor("BF16", taken([1.5, math.pi, -math.inf], "BF16", (3,)))
    given_back = Kind.numpy().give(tensor)
    assert given_back.dtype == np.float32
    assert given_back.tolist() == [1.5, 3.140625, -math.inf]
    assert math.isnan(Kind.numpy().give(Tensor("BF16", taken(math.nan, "BF16", ()))))


def test_a_python_float_is_rounded_to_bf16_once() -> None:
    just_above_half_way = 1 + 2**-8 + 2**-40
    assert taken([just_above_half_way], "BF16", (1,)).tolist() == [0x3F81]


def test_a_python_float_past_the_range_of_bf16_is_refused() -> None:
    assert "out of range" in refused([3.4e38], "BF16", (1,)).message
    with pytest.raises(ProtocolError, match="out of range"):
        from_json("BF16", (1,), [3.4e38], "y")


def test_a_python_int_past_the_range_of_bf16_is_refused() -> None:
    assert "out of range" in refused([34 * 10**37], "BF16", (1,)).message


def test_ml_dtypes_bfloat16_keeps_its_bits() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    words = np.array([0x3F80, 0x7FC1, 0xFF80, 0x0001], np.uint16)
    array = words.view(ml_dtypes.bfloat16)
    assert taken(array, "BF16").tolist() == words.tolist()
    assert taken(array[::-1], "BF16").tolist() == words[::-1].tolist()
    assert datatype_of(array) == "BF16"


def test_other_numpy_dtypes_are_refused_for_bf16() -> None:
    for dtype in ("float64", "float16", "uint16", "int64"):
        assert refused(np.zeros(1, dtype), "BF16", (1,)).hint == "Convert it: x.astype(np.float32)"


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_a_signalling_nan_of_python_goes_in_without_a_warning(datatype: str) -> None:
    (nan,) = struct.unpack("<d", bytes.fromhex("010000000000f07f"))
    array = Kind.numpy().give(Tensor(datatype, taken([nan], datatype, (1,))))
    assert np.isnan(array).all()


# ---------------------------------------------------------------- out
def test_the_kind_is_torch_where_one_of_the_values_is() -> None:
    numpy: Any = np.zeros(1)
    torch_: Any = torch.zeros(1)
    for values in (numpy, [numpy], {"x": numpy}, [1.0], 1.0, None, "text", {}, [], OnlyDLPack(torch_), np.float32(1)):
        assert Kind.of(values) is Kind.numpy()
    for values in (
        torch_,
        [numpy, torch_],
        {"a": numpy, "b": torch_},
        Tensor("FP32", torch_),
        [Tensor("FP32", torch_)],
    ):
        assert Kind.of(values) == CPU
    assert Kind.of(Tensor("FP32", numpy)) is Kind.numpy()
    assert Kind.of(iter([torch_])) is Kind.numpy()  # and isn't consumed


@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_what_is_given_shares_the_memory_of_the_answer(datatype: str, dtype: str) -> None:
    array = np.array([[0, 1, 1]], dtype)
    tensor = Tensor(datatype, array)
    assert Kind.numpy().give(tensor) is array
    as_torch = CPU.give(tensor)
    assert as_torch.dtype == TORCH[datatype]
    assert as_torch.data_ptr() == array.ctypes.data
    back = Kind.numpy().give(Tensor(datatype, as_torch))
    assert np.shares_memory(back, array)
    assert back.dtype == np.dtype(dtype)
    assert CPU.give(Tensor(datatype, as_torch)) is as_torch


def test_bf16_is_bfloat16_for_torch_and_float32_for_numpy() -> None:
    words = np.array([0x3F80, 0x7F81, 0xFFFF, 0x0001], np.uint16)
    as_torch = CPU.give(Tensor("BF16", words))
    assert as_torch.dtype == torch.bfloat16
    assert as_torch.data_ptr() == words.ctypes.data
    assert storage(Tensor("BF16", as_torch)).tolist() == words.tolist()
    assert np.shares_memory(storage(Tensor("BF16", as_torch)), words)
    as_numpy = Kind.numpy().give(Tensor("BF16", words))
    assert as_numpy.dtype == np.float32
    assert bits(as_numpy) == b"".join(b"\0\0" + struct.pack("<H", word) for word in words)


def test_strings_are_bytes_for_either_kind() -> None:
    tensor = Tensor("BYTES", np.array([b"a", b"\0"], object))
    assert Kind.numpy().give(tensor) is CPU.give(tensor) is tensor.array


def test_torch_gets_memory_of_its_own_where_the_answers_is_read_only() -> None:
    array = np.arange(3, dtype=np.float32)
    array.flags.writeable = False
    given_out = CPU.give(Tensor("FP32", array))
    given_out += 1
    assert array.tolist() == [0, 1, 2]
    assert given_out.tolist() == [1, 2, 3]


def test_another_device_is_honoured() -> None:
    meta = Kind(torch.device("meta"))
    assert meta.give(Tensor("FP32", np.zeros(2, np.float32))).device.type == "meta"
    assert meta.give(Tensor("FP32", torch.zeros(2))).device.type == "meta"


def test_storage_copies_only_where_it_must() -> None:
    array = np.arange(6, dtype=np.float32)
    assert storage(Tensor("FP32", array)) is array
    for other in (array[::-1], array.astype(">f4"), array.reshape(2, 3).T):
        came = storage(Tensor("FP32", other))
        assert came.flags.c_contiguous
        assert came.dtype == np.float32
        assert np.array_equal(came, other)
    tensor = torch.arange(6)
    assert storage(Tensor("INT64", tensor)).ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.zeros(2)),
        ("BF16", np.zeros(2, np.float32)),
        ("BOOL", np.zeros(2, np.uint8)),
        ("BYTES", np.array([b"x"])),
        ("FP32", torch.zeros(2, dtype=torch.bfloat16)),
        ("FP32", np.array([b"x"], object)),
    ],
)
def test_a_tensor_that_holds_something_else_is_an_input_error(datatype: str, array: Any) -> None:
    for use in (storage, to_bytes, to_json):
        with pytest.raises(InputError, match=f"says it is {datatype} holds"):
            use(Tensor(datatype, array))


# ---------------------------------------------------------------- round trips
shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any datatype, shape and bits."""
    datatype, shape = draw(st.sampled_from(sorted(DATATYPES))), draw(shapes)
    count, kind = math.prod(shape), DATATYPES[datatype]
    if kind.size is None:
        array = np.empty(count, object)
        array[:] = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return Tensor(datatype, array.reshape(shape))
    data = draw(st.binary(min_size=count * kind.size, max_size=count * kind.size))
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    return Tensor(datatype, np.frombuffer(data, kind.dtype).reshape(shape))


def same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.datatype, one.shape) != (other.datatype, other.shape):
        return False
    if one.datatype == "BYTES":
        return bool(one.array.tolist() == other.array.tolist())
    return bits(one.array) == bits(other.array)


@given(tensors(), st.integers(0, 8))
def test_bytes_keep_every_bit_wherever_they_lie(tensor: Tensor, offset: int) -> None:
    sent = bytes(to_bytes(tensor))
    assert len(sent) == tensor.nbytes
    arrived = memoryview(bytearray(b"#" * offset + sent))[offset:]
    came = from_bytes(tensor.datatype, tensor.shape, arrived, "output y")
    assert same_bits(came, tensor)
    assert came.array.flags.aligned
    assert came.array.flags.c_contiguous
    assert same_bits(Tensor(tensor.datatype, storage(came)), tensor)


@given(tensors())
def test_torch_keeps_every_bit(tensor: Tensor) -> None:
    through = Tensor(tensor.datatype, CPU.give(tensor))
    assert same_bits(Tensor(tensor.datatype, storage(through)), tensor)


@given(tensors())
def test_json_keeps_every_number_and_a_nan_as_a_nan(tensor: Tensor) -> None:
    if tensor.datatype == "BYTES":
        listed = [element.hex().encode() for element in tensor.array.ravel()]
        array = np.empty(len(listed), object)
        array[:] = listed
        tensor = Tensor("BYTES", array.reshape(tensor.shape))
    data = json.loads(json.dumps(to_json(tensor)))
    came = from_json(tensor.datatype, tensor.shape, data, "output y")
    if tensor.datatype == "BYTES" or (tensor.array.dtype.kind in "biu" and tensor.datatype != "BF16"):
        assert same_bits(came, tensor)
        return
    ours, theirs = Kind.numpy().give(came), Kind.numpy().give(tensor)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    assert bits(np.where(np.isnan(ours), 0, ours)) == bits(np.where(np.isnan(theirs), 0, theirs))


@given(tensors())
def test_what_comes_out_for_numpy_goes_in_again(tensor: Tensor) -> None:
    again = take(Kind.numpy().give(tensor), TensorSpec("x", tensor.datatype, tensor.shape), where="m")
    if tensor.datatype == "BF16":  # a NaN may become a quiet one
        assert np.array_equal(Kind.numpy().give(again), Kind.numpy().give(tensor), equal_nan=True)
    else:
        assert same_bits(again, tensor)


@given(tensors())
def test_python_lists_go_in_as_the_numbers_they_are(tensor: Tensor) -> None:
    array = Kind.numpy().give(tensor)
    if 0 in array.shape:  # a list can't say what stands behind an axis of size 0
        return
    again = take(array.tolist(), TensorSpec("x", tensor.datatype, tensor.shape), where="m")
    ours = Kind.numpy().give(again)
    assert ours.shape == array.shape
    assert ours.tolist() == array.tolist() or np.array_equal(ours, array, equal_nan=True)


# ---------------------------------------------------------------- bytes
def test_the_bytes_are_a_view_of_the_array() -> None:
    array = np.zeros(4, np.float32)
    view = to_bytes(Tensor("FP32", array))
    array[0] = 1
    assert bytes(view[:4]) == b"\0\0\x80?"
    assert isinstance(view, memoryview)
    assert (view.format, view.nbytes) == ("B", 16)
    assert bytes(to_bytes(Tensor("FP32", np.array(1, np.float32)))) == b"\0\0\x80?"


def test_bytes_that_lie_aligned_are_not_copied() -> None:
    buffer = bytearray(64)
    block = np.frombuffer(buffer, np.uint8)
    start = -block.ctypes.data % 8
    aligned = from_bytes("FP64", (2,), memoryview(buffer)[start : start + 16], "y").array
    assert np.shares_memory(aligned, block)
    assert aligned.flags.writeable
    moved = from_bytes("FP64", (2,), memoryview(buffer)[start + 1 : start + 17], "y").array
    assert not np.shares_memory(moved, block)


def test_strings_in_bytes_are_lengths_and_contents() -> None:
    golden = bytes.fromhex("03000000 616263 00000000 02000000 0000 02000000 c3a9")
    tensor = Tensor("BYTES", taken(["abc", b"", b"\0\0", "é"], "BYTES", (4,)))
    assert to_bytes(tensor) == golden
    came = from_bytes("BYTES", (2, 2), golden, "y")
    assert came.array.tolist() == [[b"abc", b""], [b"\0\0", "é".encode()]]
    assert came.nbytes == len(golden)
    assert from_bytes("BYTES", (0,), b"", "y").shape == (0,)
    assert from_bytes("BYTES", (), b"\1\0\0\0x", "y").array.item() == b"x"


@pytest.mark.parametrize(
    ("datatype", "values", "golden"),
    [
        ("BOOL", [True, False], "0100"),
        ("INT16", [1, -2], "0100feff"),
        ("UINT32", [1], "01000000"),
        ("INT64", [-1], "ffffffffffffffff"),
        ("FP16", [1.0], "003c"),
        ("BF16", [1.0], "803f"),
        ("FP32", [1.0], "0000803f"),
        ("FP64", [1.0], "000000000000f03f"),
    ],
)
def test_numbers_in_bytes_are_little_endian_and_packed(datatype: str, values: list[Any], golden: str) -> None:
    tensor = Tensor(datatype, taken(values, datatype, (-1,)))
    assert bytes(to_bytes(tensor)).hex() == golden
    assert same_bits(from_bytes(datatype, (len(values),), bytes.fromhex(golden), "y"), tensor)


def test_a_tensor_of_strings_that_holds_something_else_is_an_input_error() -> None:
    with pytest.raises(InputError, match="something else than bytes"):
        to_bytes(Tensor("BYTES", np.array([1], object)))
    with pytest.raises(InputError, match="something else than bytes"):
        to_bytes(Tensor("BYTES", np.array(["\ud800"], object)))


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP32", (2,), b"\0" * 7, r"output y has 7 bytes; FP32 \[2\] takes 8"),
        ("FP32", (2,), b"\0" * 9, r"output y has 9 bytes; FP32 \[2\] takes 8"),
        ("FP32", (0,), b"\0", r"has 1 bytes; FP32 \[0\] takes 0"),
        ("INT8", (), b"", r"has 0 bytes; INT8 \[\] takes 1"),
        ("BOOL", (2,), b"\0\2", "BOOL and has bytes other than 0 and 1"),
        ("BOOL", (2,), b"\xff\1", "BOOL and has bytes other than 0 and 1"),
        ("BYTES", (1,), b"\1\0\0", "has 3 bytes, too few for 1 BYTES elements"),
        ("BYTES", (2,), b"\4\0\0\0abcd", "ends inside of BYTES element 1 of 2"),
        ("BYTES", (1,), b"\4\0\0\0abc", "ends inside of BYTES element 0 of 1"),
        ("BYTES", (1,), b"\xff\xff\xff\xffabc", "ends inside of BYTES element 0 of 1"),
        ("BYTES", (2,), b"\1\0\0\0abc\0", "ends inside of BYTES element 1 of 2"),
        ("BYTES", (1,), b"\1\0\0\0ab", "has 1 bytes after its last BYTES element"),
        ("BYTES", (0,), b"\0\0\0\0", "has 4 bytes after its last BYTES element"),
        ("BYTES", (2**40,), b"\0" * 8, "too few for 1099511627776 BYTES elements"),
        ("FP8", (1,), b"\0", "unknown datatype"),
        ("fp32", (1,), b"\0" * 4, "unknown datatype"),
        ("", (), b"", "unknown datatype"),
    ],
)
def test_bytes_that_are_not_the_tensor_are_a_protocol_error(
    datatype: str, shape: tuple[int, ...], data: bytes, words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        from_bytes(datatype, shape, data, "output y")


BAD_SHAPES: list[Any] = [(-1,), (2, -1), (1.0,), (True,), ("2",), (None,), ([1],)]
TOO_LARGE = [(2**62,), (2**31, 2**31, 2**31), (0, 2**62), (2**62, 0), (2**200,), (0, 2**31, 2**31, 4)]


@pytest.mark.parametrize("datatype", ["FP64", "BYTES"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [(s, "isn't a list of sizes") for s in BAD_SHAPES]
    + [(s, "too large for any memory") for s in TOO_LARGE]
    + [((1,) * (MAX_RANK + 1), f"{MAX_RANK + 1} axes; at most {MAX_RANK}"), ((0,) * 1000, "1000 axes")],
)
def test_an_impossible_shape_is_a_protocol_error(datatype: str, shape: Any, words: str) -> None:
    with pytest.raises(ProtocolError, match=f"output y has .*{words}"):
        from_bytes(datatype, shape, b"", "output y")
    with pytest.raises(ProtocolError, match=f"output y has .*{words}"):
        from_json(datatype, shape, [], "output y")


@pytest.fixture
def no_large_allocation() -> Iterator[None]:
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.usefixtures("no_large_allocation")
def test_nothing_is_allocated_on_the_word_of_a_shape_or_a_length() -> None:
    for datatype in DATATYPES:
        for shape in ((2**31,), (2**20, 2**20), (2**40,), (3, 2**33)):
            with pytest.raises(ProtocolError):
                from_bytes(datatype, shape, b"\0" * 16, "output y")
            with pytest.raises(ProtocolError):
                from_json(datatype, shape, [0], "output y")
    with pytest.raises(ProtocolError):
        from_bytes("BYTES", (1,), struct.pack("<I", 2**32 - 1), "output y")
    assert from_bytes("FP32", (0, 2**40), b"", "output y").shape == (0, 2**40)


# ---------------------------------------------------------------- JSON
def test_json_data_may_be_nested_or_flat() -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]):
        assert from_json("INT8", (2, 2), data, "y").array.tolist() == [[1, 2], [3, 4]]
    assert from_json("FP32", (), [1], "y").array.item() == 1
    assert from_json("FP32", (2, 0), [[], []], "y").shape == (2, 0)
    assert from_json("BYTES", (1,), ["é\0"], "y").array.tolist() == ["é\0".encode()]
    assert from_json("INT64", (1,), [1.0], "y").array.tolist() == [1]
    assert from_json("BOOL", (2,), [1, False], "y").array.tolist() == [True, False]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_null_in_float_data_is_nan(datatype: str) -> None:
    came = Kind.numpy().give(from_json(datatype, (3,), [1, None, 2.5], "y")).tolist()
    assert math.isnan(came[1])
    assert [came[0], came[2]] == [1, 2.5]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP32", (3,), [1, 2], r"2 elements for shape \[3\]"),
        ("FP32", (1,), [1, 2], r"2 elements for shape \[1\]"),
        ("FP32", (), [], r"0 elements for shape \[\]"),
        ("FP32", (2,), [[1], 2], "ragged lists"),
        ("FP32", (1,), ["1"], "values that aren't numbers"),
        ("FP32", (1,), [True], "values that aren't numbers"),
        ("FP32", (1,), [{}], "values that aren't numbers"),
        ("FP32", (1,), [1e39], "numbers out of range"),
        ("FP16", (1,), [65520], "numbers out of range"),
        ("FP64", (1,), [10**400], "numbers out of range"),
        ("INT8", (1,), [128], "numbers out of range"),
        ("UINT8", (1,), [-1], "numbers out of range"),
        ("INT64", (1,), [2**63], "numbers out of range"),
        ("INT8", (1,), [1.5], "numbers that aren't integers"),
        ("INT64", (1,), [1e300], "numbers that aren't integers"),
        ("INT8", (1,), [None], "values that aren't integers"),
        ("INT8", (1,), [True], "values that aren't integers"),
        ("BOOL", (1,), [2], "values that aren't true or false"),
        ("BOOL", (1,), [None], "values that aren't true or false"),
        ("BOOL", (1,), ["true"], "values that aren't true or false"),
        ("BYTES", (1,), [1], "values that aren't strings"),
        ("BYTES", (1,), [None], "values that aren't strings"),
        ("BYTES", (1,), ["\ud800"], "text that isn't Unicode"),
    ],
)
def test_json_data_that_is_not_the_tensor_is_a_protocol_error(
    datatype: str, shape: tuple[int, ...], data: Any, words: str
) -> None:
    with pytest.raises(ProtocolError, match=rf"output y \({datatype}\) has {words}"):
        from_json(datatype, shape, data, "output y")


@pytest.mark.parametrize("data", [None, 1, "abc", {"0": 1}, (1,), b"abc", True])
def test_json_data_that_is_no_list_is_a_protocol_error(data: Any) -> None:
    with pytest.raises(ProtocolError, match="output y has data that is no list"):
        from_json("FP32", (1,), data, "output y")


def test_json_data_nested_without_end_is_a_protocol_error() -> None:
    data: Any = [1]
    for _ in range(5000):
        data = [data]
    with pytest.raises(ProtocolError, match=f"nested more than {MAX_RANK} deep"):
        from_json("FP32", (1,), data, "output y")
    with pytest.raises(ProtocolError, match="unknown datatype"):
        from_json("FP8", (1,), [1], "output y")


def test_strings_that_are_not_utf_8_cannot_go_as_json() -> None:
    with pytest.raises(InputError, match="aren't UTF-8") as caught:
        to_json(Tensor("BYTES", np.array([b"\xff"], object)))
    assert caught.value.hint is not None
    assert "binary" in caught.value.hint


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda v: st.lists(v, max_size=3)
)


@given(st.sampled_from(sorted(DATATYPES)), shapes, st.lists(values, max_size=4))
def test_any_json_makes_a_tensor_or_a_protocol_error(datatype: str, shape: tuple[int, ...], data: Any) -> None:
    with contextlib.suppress(ProtocolError):
        assert from_json(datatype, shape, data, "y").shape == shape


@given(st.sampled_from(sorted(DATATYPES)), shapes, st.binary(max_size=40))
def test_any_bytes_make_a_tensor_or_a_protocol_error(datatype: str, shape: tuple[int, ...], data: bytes) -> None:
    try:
        tensor = from_bytes(datatype, shape, data, "y")
    except ProtocolError:
        return
    assert bytes(to_bytes(tensor)) == data


@given(st.sampled_from(sorted(DATATYPES)), values)
def test_any_python_value_makes_a_tensor_or_an_input_error(datatype: str, value: Any) -> None:
    for rank in range(4):
        try:
            tensor = take(value, TensorSpec("x", datatype, (-1,) * rank), where="m")
        except InputError:
            continue
        assert storage(tensor).dtype == DATATYPES[datatype].dtype


# ---------------------------------------------------------------- what went wrong elsewhere
@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", ">f4"), ("INT64", ">i8"), ("UINT16", ">u2"), ("FP64", ">f8")])
def test_big_endian_arrays_arrive_as_the_same_numbers(datatype: str, dtype: str) -> None:
    numbers = np.array([[1, 2, 258], [3, 4, 65]], dtype)
    tensor = take(numbers, TensorSpec("x", datatype, (-1, 3)), where="m")
    binary = from_bytes(datatype, (2, 3), to_bytes(tensor), "y")
    text = from_json(datatype, (2, 3), to_json(tensor), "y")
    for arrived in (tensor, binary, text):
        assert Kind.numpy().give(arrived).tolist() == [[1, 2, 258], [3, 4, 65]]
        assert CPU.give(arrived).tolist() == [[1, 2, 258], [3, 4, 65]]
    raw = Tensor(datatype, numbers)  # also where a backend made the tensor
    assert bytes(to_bytes(raw)) == bytes(to_bytes(tensor))
    assert to_json(raw) == to_json(tensor)


def test_trailing_zero_bytes_of_strings_are_kept() -> None:
    elements = [b"\0\0", b"a\0", b"", b"\xff\xfe\x80", bytes(2**20)]
    array = np.empty(len(elements), object)
    array[:] = elements
    for value in (elements, tuple(elements), array):
        tensor = take(value, TensorSpec("x", "BYTES", (-1,)), where="m")
        assert from_bytes("BYTES", tensor.shape, to_bytes(tensor), "y").array.tolist() == elements
    for element in elements:
        assert taken(element, "BYTES", ()).item() == element
        assert taken(np.bytes_(element), "BYTES", ()).item() == element
        assert taken([np.bytes_(element)], "BYTES", (1,)).tolist() == [element]
    error = refused(np.array(elements[:3]), "BYTES", (-1,))  # numpy cut them already
    assert "S3 array" in error.message or "S2 array" in error.message
    assert error.hint is not None
    assert "trailing zero bytes" in error.hint
    assert from_json("BYTES", (1,), to_json(Tensor("BYTES", np.array([b"a\0"], object))), "y").array.tolist() == [
        b"a\0"
    ]


def test_bfloat16_keeps_its_bits_end_to_end_and_a_numpy_caller_gets_float32() -> None:
    words = np.array([0x3F80, 0x3F81, 0x0001, 0x8001, 0x7F80, 0x7FC0, 0x7F81, 0xFFFF], np.uint16)
    tensor = torch.from_numpy(words.view(np.int16).copy()).view(torch.bfloat16)
    came = take(tensor, TensorSpec("x", "BF16", (-1,)), where="m")
    arrived = from_bytes("BF16", (len(words),), bytes(to_bytes(came)), "y")
    back = CPU.give(arrived)
    assert back.dtype == torch.bfloat16
    assert back.view(torch.int16).numpy().view(np.uint16).tolist() == words.tolist()
    for_numpy = Kind.numpy().give(arrived)
    assert for_numpy.dtype == np.float32
    assert np.array_equal(for_numpy, tensor.float().numpy(), equal_nan=True)
    assert bf16(float32(0x3F808000), float32(0x3F818000)) == [0x3F80, 0x3F82]  # half way: to even, not cut


@pytest.mark.parametrize("shape", EMPTY)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_arrays_without_elements_keep_their_shape_both_ways(datatype: str, shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, NUMPY.get(datatype, "float32" if datatype == "BF16" else "object"))
    ways: list[Any] = [empty, np.asfortranarray(empty), empty[..., ::-1], OnlyArray(empty), empty.tolist()]
    if datatype != "BYTES":
        ways += [
            torch.zeros(shape, dtype=TORCH[datatype]),
            torch.zeros(shape[::-1], dtype=TORCH[datatype]).permute(*range(len(shape))[::-1]),
        ]
    if datatype not in ("BYTES", "BF16"):
        ways.append(OnlyDLPack(empty))
    for value in ways:
        if isinstance(value, list) and np.shape(value) != shape:
            continue  # a list can't say what stands behind an axis of size 0
        tensor = take(value, TensorSpec("x", datatype, tuple(-1 for _ in shape)), where="m")
        binary = from_bytes(datatype, shape, to_bytes(tensor), "y")
        text = from_json(datatype, shape, to_json(tensor), "y")
        for arrived in (tensor, binary, text):
            assert arrived.shape == shape
            assert arrived.nbytes == 0
            assert Kind.numpy().give(arrived).shape == shape
            assert tuple(CPU.give(arrived).shape) == shape
        assert bytes(to_bytes(tensor)) == b""
        assert to_json(tensor) == []
