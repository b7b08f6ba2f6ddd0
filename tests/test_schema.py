"""Records and tensors: what goes where, what is refused at once, and who is to blame for a value that doesn't fit."""

from __future__ import annotations

import datetime
import math
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, TypedDict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from aiaas_sdk.errors import ConfigError, InputError, ProtocolError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.schema import Bound, Schema
from aiaas_sdk.tensors import take
from tests.stopwatch import Stopwatch

Specs = Mapping[str, tuple[str, Sequence[int]]]


def info(inputs: Specs, outputs: Specs, labels: tuple[str, ...] | None = None) -> ModelInfo:
    return ModelInfo(name="m", inputs=_specs(inputs), outputs=_specs(outputs), labels=labels)


def _specs(specs: Specs) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, datatype, tuple(shape)) for name, (datatype, shape) in specs.items())


def record(**fields: Any) -> type[BaseModel]:
    """A record type; a field is an annotation, or (annotation, default)."""
    made = {name: value if isinstance(value, tuple) else (value, ...) for name, value in fields.items()}
    kind: type[BaseModel] = create_model("Rec", __config__=ConfigDict(arbitrary_types_allowed=True), **made)
    return kind


def encoding(kind: type[Any], inputs: Specs) -> Bound:
    return Schema(kind, None).bind(info(inputs, {"y": ("FP32", [-1, 2])}))


def decoding(kind: type[Any], outputs: Specs, labels: tuple[str, ...] | None = None) -> Bound:
    return Schema(None, kind).bind(info({"x": ("FP32", [-1, 2])}, outputs, labels))


class Flower(BaseModel):
    length: float
    width: float


class Species(BaseModel):
    label: str
    probability: float


def equal(array: npt.NDArray[Any], dtype: str, values: Any) -> bool:
    return str(array.dtype) == dtype and np.array_equal(array, np.array(values, dtype=dtype))


# ---------------------------------------------------------------- record types
class Typed(TypedDict):
    x: float


@dataclass
class Classic:
    x: float


@pytest.mark.parametrize("kind", [Typed, Classic, dict, int, Flower(length=1, width=2), "Flower", Flower.__init__])
def test_only_pydantic_models_are_record_types(kind: Any) -> None:
    for schema in ({"input": kind}, {"output": kind}):
        with pytest.raises(ConfigError, match="BaseModel"):
            Schema(**schema)


def test_a_record_type_has_fields() -> None:
    with pytest.raises(ConfigError, match="no fields"):
        encoding(BaseModel, {"x": ("FP32", [-1])})


@pytest.mark.parametrize(
    "annotation",
    [
        datetime.datetime,
        datetime.date,
        datetime.timedelta,
        complex,
        Flower,
        list[Flower],
        set[float],
        dict[str, str],
        dict[str, float],
        list[dict[str, float]],
        datetime.datetime | None,
        list[float | list[float]],
        Literal[None],
    ],
)
def test_a_field_that_no_tensor_is_like_is_refused_when_bound(annotation: Any) -> None:
    with pytest.raises(ConfigError, match=r"Rec\.x") as caught:
        encoding(record(x=annotation), {"x": ("FP32", [-1, 3])})
    assert caught.value.hint


# ---------------------------------------------------------------- where inputs come from
def test_fields_go_to_the_inputs_of_their_name_or_alias() -> None:
    class Rec(BaseModel):
        b: int
        a: float = Field(alias="x")
        note: str = Field(default="", exclude=True)

    bound = encoding(Rec, {"x": ("FP32", [-1]), "b": ("INT64", [-1, 1])})
    arrays = bound.encode([Rec(b=1, x=0.5), {"b": 2, "x": 1.5, "note": "n"}])
    assert bound.batched
    assert list(arrays) == ["x", "b"]
    assert equal(arrays["x"], "float32", [0.5, 1.5])
    assert equal(arrays["b"], "int64", [[1], [2]])


@pytest.mark.parametrize("width", [2, -1])
def test_scalar_fields_are_the_columns_of_a_matrix_in_their_order(width: int) -> None:
    bound = encoding(Flower, {"input": ("FP32", [-1, width])})
    arrays = bound.encode([Flower(length=1, width=2), {"width": 4, "length": 3}])
    assert equal(arrays["input"], "float32", [[1, 2], [3, 4]])


def test_one_field_of_the_inputs_name_is_its_row() -> None:
    bound = encoding(record(pixels=list[list[float]]), {"pixels": ("FP64", [-1, 2, 2])})
    arrays = bound.encode([{"pixels": [[1, 2], [3, 4]]}, {"pixels": [[5, 6], [7, 8]]}])
    assert equal(arrays["pixels"], "float64", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])


@pytest.mark.parametrize(
    ("fields", "inputs", "parts"),
    [
        ({"a": float}, {"x": ("FP32", [-1, 2])}, ["'x'", "it has a", "2 scalar fields", "alias"]),
        ({"a": float, "b": float, "c": float}, {"x": ("FP32", [-1, 2])}, ["'x'"]),
        ({"a": float, "b": list[float]}, {"x": ("FP32", [-1, 2])}, ["'x'"]),
        ({"x": float}, {"x": ("FP32", [-1]), "y": ("FP32", [-1])}, ["'y'"]),
        ({"x": float, "z": float}, {"x": ("FP32", [-1])}, ["Rec.z", "no input", "exclude=True"]),
        ({"x": float}, {"x": ("INT64", [-1])}, ["Rec.x", "float", "INT64", "bool, int"]),
        ({"x": int}, {"x": ("BOOL", [-1])}, ["Rec.x", "BOOL"]),
        ({"x": str}, {"x": ("FP32", [-1])}, ["Rec.x", "str"]),
        ({"x": float}, {"x": ("BYTES", [-1])}, ["Rec.x", "BYTES"]),
        ({"a": float, "b": str}, {"x": ("FP32", [-1, 2])}, ["Rec.b", "str"]),
        ({"x": float}, {"x": ("FP32", [-1, 2])}, ["Rec.x", "[2]"]),
        ({"x": list[float]}, {"x": ("FP32", [-1])}, ["Rec.x", "[]"]),
        ({"x": list[float]}, {"x": ("FP32", [-1, 2, 2])}, ["Rec.x", "[2, 2]"]),
        ({"x": list[str]}, {"x": ("FP32", [-1, 2])}, ["Rec.x", "str"]),
    ],
)
def test_what_cant_fit_is_told_when_bound(fields: dict[str, Any], inputs: Specs, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        encoding(record(**fields), inputs)
    assert caught.value.hint
    for part in ("m: ", *parts):
        assert part in str(caught.value)


# ---------------------------------------------------------------- values that go in
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Metres(float):
    pass


Kilograms = NewType("Kilograms", float)


@pytest.mark.parametrize(
    ("annotation", "datatype", "row", "value", "dtype", "want"),
    [
        (float, "FP32", [], 0.5, "float32", 0.5),
        (float, "FP32", [1], 0.5, "float32", [0.5]),
        (float, "FP32", [-1, 1], 0.5, "float32", [[0.5]]),
        (float, "BF16", [], 0.5, "float32", 0.5),
        (float, "FP16", [], 3, "float16", 3),
        (int, "FP64", [], 3, "float64", 3),
        (int, "UINT8", [], 255, "uint8", 255),
        (bool, "BOOL", [], True, "bool", True),
        (bool, "FP32", [], True, "float32", 1),
        (bool, "INT8", [], True, "int8", 1),
        (Size, "INT32", [], Size.LARGE, "int32", 2),
        (Colour, "BYTES", [], Colour.BLUE, "object", b"blue"),
        (Literal[1, 2], "INT64", [], 2, "int64", 2),
        (Literal["a", "b"], "BYTES", [], "b", "object", b"b"),
        (str, "BYTES", [1], "grün", "object", ["grün".encode()]),
        (bytes, "BYTES", [], b"a\0", "object", b"a\0"),
        (Annotated[int, Field(gt=0)], "INT64", [], 5, "int64", 5),
        (Any, "FP32", [2], [1, 2.5], "float32", [1, 2.5]),
        (Any, "FP32", [2], np.array([1, 2], np.float32), "float32", [1, 2]),
        (np.ndarray, "INT64", [2, 1], np.array([[1], [2]]), "int64", [[1], [2]]),
        (list[int], "INT64", [-1], [1, 2, 3], "int64", [1, 2, 3]),
        (tuple[float, float], "FP32", [2], (1, 2), "float32", [1, 2]),
        (list[Size], "FP32", [2], [Size.SMALL, 2], "float32", [1, 2]),
        (list[bool], "UINT8", [2], [True, False], "uint8", [1, 0]),
        (list[str], "BYTES", [2], ["a", "b"], "object", [b"a", b"b"]),
        (list[list[bytes]], "BYTES", [1, 1], [[b"\xff"]], "object", [[b"\xff"]]),
        (Kilograms, "FP32", [], 2.0, "float32", 2),
        (list, "FP32", [2], [1, 2.0], "float32", [1, 2]),
        (Sequence[int], "INT64", [2], [1, 2], "int64", [1, 2]),
        (np.float32, "FP32", [], np.float32(0.1), "float32", np.float32(0.1)),
        (np.int8, "INT64", [], np.int8(3), "int64", 3),
        (int | list[int], "INT64", [2], [1, 2], "int64", [1, 2]),
        (Metres, "FP32", [], Metres(2), "float32", 2),
    ],
)
def test_what_a_field_takes(annotation: Any, datatype: str, row: list[int], value: Any, dtype: str, want: Any) -> None:
    bound = encoding(record(x=annotation), {"x": (datatype, [-1, *row])})
    array = bound.encode([{"x": value}, {"x": value}])["x"]
    assert equal(array, dtype, [want, want])
    take(array, TensorSpec("x", datatype, (-1, *row)), where="m")  # as `predict` takes it


@pytest.mark.parametrize("annotation", [float | None, int | None, list[float | None] | None])
@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_none_is_nan_in_floats(annotation: Any, datatype: str) -> None:
    row = [] if "list" not in str(annotation) else [1]
    value = None if not row else [None]
    array = encoding(record(x=annotation), {"x": (datatype, [-1, *row])}).encode([{"x": value}])["x"]
    assert np.isnan(array).all()


def test_r48_none_for_an_integer_names_record_and_field_and_a_value_passes() -> None:
    for annotation, datatype, value in (
        (int | None, "INT64", 3),
        (bool | None, "BOOL", True),
        (str | None, "BYTES", ""),
    ):
        bound = encoding(record(a=(float, 0.0), x=(annotation, None)), {"x": (datatype, [-1]), "a": ("FP32", [-1])})
        assert len(bound.encode([{"x": value}])["x"]) == 1
        with pytest.raises(InputError, match=f"record 1, field 'x' is None, and {datatype}"):
            bound.encode([{"x": value}, {"x": None}])


@pytest.mark.parametrize(
    ("annotation", "datatype", "row", "values", "parts"),
    [
        (int, "INT8", [], [1, 300], ["record 1, field 'x'", "out of range"]),
        (int, "FP32", [], [1, 2**24 + 1], ["record 1, field 'x'", "exactly"]),
        (float, "FP16", [], [1.0, 1e9], ["record 1, field 'x'", "out of range"]),
        (list[float], "FP32", [2], [[1, 2], [1, 2, 3]], ["record 1, field 'x'", "shape [3]"]),
        (list[float], "FP32", [-1], [[1, 2], [1, 2], [1]], ["record 2, field 'x'", "shape [1]", "record 0 has [2]"]),
        (list[list[float]], "FP32", [-1, -1], [[[1], [1, 2]]], ["record 0, field 'x'", "ragged"]),
        (Any, "FP32", [2], [[1, 2], "ab"], ["record 1, field 'x'"]),
        (Any, "FP32", [2], [np.zeros(2, np.float32), np.zeros(2)], ["record 1, field 'x'", "float64", "astype"]),
        (Any, "INT64", [], [3, None], ["record 1, field 'x' is None"]),
        (Any, "FP32", [], [1.0, object()], ["record 1, field 'x'"]),
    ],
)
def test_a_value_that_doesnt_fit_names_its_record(
    annotation: Any, datatype: str, row: list[int], values: list[Any], parts: list[str]
) -> None:
    bound = encoding(record(x=annotation), {"x": (datatype, [-1, *row])})
    with pytest.raises(InputError) as caught:
        bound.encode([{"x": value} for value in values])
    for part in parts:
        assert part in str(caught.value)


def test_the_index_counts_from_the_first_record_of_a_longer_list() -> None:
    bound = encoding(record(x=int), {"x": ("INT8", [-1])})
    with pytest.raises(InputError, match="record 65, field 'x'"):
        bound.encode([{"x": 1}, {"x": 300}], 64)
    with pytest.raises(InputError, match="record 64 is an int"):
        bound.encode([1], 64)


@pytest.mark.slow
def test_a_torch_tensor_in_a_field_is_taken() -> None:
    torch = pytest.importorskip("torch")
    bound = encoding(record(x=Any), {"x": ("FP32", [-1, 2])})
    arrays = bound.encode([{"x": torch.ones(2)}, {"x": torch.zeros(2)}])
    assert equal(arrays["x"], "float32", [[1, 1], [0, 0]])


def test_a_wrong_record_is_named_without_its_values() -> None:
    class Strict(Flower):
        @field_validator("width")
        @classmethod
        def _whole(cls, value: float) -> float:
            return 1 / value

    bound = encoding(Strict, {"x": ("FP32", [-1, 2])})
    for wrong, part in (
        ({"length": "s3cret", "width": 1}, r"record 1 is no Strict: length: Input should be a valid number"),
        ({"length": 1}, r"width: Field required"),
        ({"length": 1, "width": 0}, r"raised ZeroDivisionError"),
        (Flower(length=1, width=2), r"record 1 is a Flower; m takes Strict"),
        ("s3cret", r"record 1 is a str"),
        (None, r"record 1 is a NoneType"),
    ):
        with pytest.raises(InputError, match=part) as caught:
            bound.encode([{"length": 1, "width": 2}, wrong])
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None


def test_no_records_are_empty_arrays() -> None:
    bound = encoding(record(a=float, b=list[list[int]]), {"a": ("BF16", [-1]), "b": ("INT64", [-1, -1, 3])})
    arrays = bound.encode([])
    assert {name: (str(a.dtype), a.shape) for name, a in arrays.items()} == {
        "a": ("float32", (0,)),
        "b": ("int64", (0, 0, 3)),
    }
    assert encoding(Flower, {"x": ("FP32", [-1, 2])}).encode([])["x"].shape == (0, 2)
    assert decoding(Species, {"s": ("FP32", [-1, 2])}).decode({"s": np.zeros((0, 2), np.float32)}, 0) == []


# ---------------------------------------------------------------- where outputs go
def test_fields_take_the_outputs_of_their_name_or_alias() -> None:
    class Rec(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        y: float = Field(alias="out-put")
        row: np.ndarray
        box: list[float]
        text: str
        raw: bytes
        anything: Any
        flag: bool
        absent: int = 7

    outputs: Specs = {
        "out-put": ("FP32", [-1, 1]),
        "row": ("BF16", [-1, 2]),
        "box": ("FP64", [-1, 2]),
        "text": ("BYTES", [-1]),
        "raw": ("BYTES", [-1, 1]),
        "anything": ("INT64", [-1, 2]),
        "flag": ("BOOL", [-1]),
        "more": ("FP32", [-1, 9]),
    }
    answer = {
        "out-put": np.array([[0.5], [1.5]], np.float32),
        "row": np.array([[1, 2], [3, 4]], np.float32),
        "box": np.array([[1, 2], [3, 4.0]]),
        "text": np.array(["ü".encode(), b""], object),
        "raw": np.array([[b"\xff"], [b""]], object),
        "anything": np.array([[1, 2], [3, 4]]),
        "flag": np.array([True, False]),
        "more": np.zeros((2, 9), np.float32),
    }
    one, two = decoding(Rec, outputs).decode(answer, 2)
    assert (one.y, one.box, one.text, one.raw, one.flag, one.absent) == (0.5, [1.0, 2.0], "ü", b"\xff", True, 7)
    assert equal(two.row, "float32", [3, 4])
    assert equal(two.anything, "int64", [3, 4])


def test_scalar_fields_take_the_columns_of_a_matrix() -> None:
    bound = decoding(record(x=float, n=int), {"out": ("FP32", [-1, 2])})
    two = bound.decode({"out": np.array([[0.5, 1], [1.5, 2]], np.float32)}, 2)[1]
    assert two.model_dump() == {"x": 1.5, "n": 2}
    one = decoding(record(probability=float), {"out": ("FP32", [-1, 1])})
    assert one.decode({"out": np.array([[0.25]], np.float32)}, 1)[0].model_dump() == {"probability": 0.25}


def test_an_unknown_width_is_checked_when_it_comes() -> None:
    bound = decoding(record(x=float, n=int), {"out": ("FP32", [-1, -1])})
    assert bound.decode({"out": np.ones((1, 2), np.float32)}, 1)[0].model_dump() == {"x": 1.0, "n": 1}
    with pytest.raises(ProtocolError, match=r"\[3\], not 2 columns"):
        bound.decode({"out": np.ones((1, 3), np.float32)}, 1)


@pytest.mark.parametrize(
    ("fields", "outputs", "parts"),
    [
        ({"z": float}, {"y": ("FP32", [-1, 3])}, ["Rec.z", "no output", "label"]),
        ({"y": str}, {"y": ("FP32", [-1])}, ["Rec.y", "str", "FP32"]),
        ({"y": float}, {"y": ("BYTES", [-1])}, ["Rec.y", "BYTES"]),
        ({"y": float}, {"y": ("FP32", [-1, 3])}, ["Rec.y", "[3]"]),
        ({"y": list[float]}, {"y": ("FP32", [-1])}, ["Rec.y", "[]"]),
        ({"a": float, "b": str}, {"y": ("FP32", [-1, 2])}, ["Rec.b", "str"]),
        ({"label": str}, {"y": ("FP32", [-1])}, ["Rec.label", "a score per class"]),
        ({"label": str}, {"y": ("FP32", [-1, 1])}, ["Rec.label", "str"]),
        ({"label": str}, {"y": ("FP32", [-1, 2]), "z": ("FP32", [-1, 2])}, ["Rec.label", "y FP32 [2], z FP32 [2]"]),
        ({"label": list[str]}, {"y": ("FP32", [-1, 3])}, ["Rec.label"]),
        ({"scores": dict[str, float]}, {"y": ("FP32", [-1, 3])}, ["Rec.scores"]),
    ],
)
def test_a_field_without_a_source_is_told_when_bound(fields: dict[str, Any], outputs: Specs, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        decoding(record(**fields), outputs)
    assert caught.value.hint
    for part in ("m: ", *parts):
        assert part in str(caught.value)


# ---------------------------------------------------------------- classifiers
SCORES = np.log(np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], np.float32))


def test_a_classifier_gives_label_probability_probabilities_and_scores() -> None:
    class Rec(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        label: str
        probability: float
        probabilities: dict[str, float]
        scores: np.ndarray

    bound = decoding(Rec, {"logits": ("FP32", [-1, 3]), "n": ("INT64", [-1])}, ("a", "b", "c"))
    one, two = bound.decode({"logits": SCORES, "n": np.zeros(2, np.int64)}, 2)
    assert (one.label, two.label) == ("b", "a")
    assert one.probability == pytest.approx(0.7)
    assert one.probabilities == pytest.approx({"a": 0.2, "b": 0.7, "c": 0.1})
    assert equal(two.scores, "float32", SCORES[1])


@pytest.mark.parametrize(
    ("name", "annotation", "labels", "want"),
    [
        ("label", str, None, "1"),
        ("label", str, ("a",), "1"),
        ("label", int, ("a", "b", "c"), 1),
        ("label", Literal["a", "b", "c"], ("a", "b", "c"), "b"),
        ("label", Any, ("a", "b", "c"), "b"),
        ("label", Size, None, Size.SMALL),
        ("probabilities", list[float], None, pytest.approx([0.2, 0.7, 0.1])),
        ("probabilities", dict[int, float], ("a", "b", "c"), pytest.approx({0: 0.2, 1: 0.7, 2: 0.1})),
        ("probabilities", dict[str, float], None, pytest.approx({"0": 0.2, "1": 0.7, "2": 0.1})),
        ("scores", list[float], None, SCORES[0].tolist()),
    ],
)
@pytest.mark.parametrize("width", [3, -1])
def test_the_forms_of_a_classification(
    name: str, annotation: Any, labels: tuple[str, ...] | None, want: Any, width: int
) -> None:
    bound = decoding(record(**{name: annotation}, more=(int, 0)), {"y": ("FP32", [-1, width])}, labels)
    assert getattr(bound.decode({"y": SCORES[:1]}, 1)[0], name) == want


def test_an_output_of_a_fields_own_name_goes_before_what_scores_give() -> None:
    outputs: Specs = {"label": ("INT64", [-1]), "probabilities": ("FP32", [-1, 3])}
    answer = {"label": np.array([2]), "probabilities": np.array([[2, 1, 1]], np.float32)}
    kind = record(label=int, probabilities=list[float], probability=float)
    one = decoding(kind, outputs).decode(answer, 1)[0]
    assert one.model_dump() == {
        "label": 2,
        "probabilities": [2.0, 1.0, 1.0],
        "probability": pytest.approx(math.e / (math.e + 2)),
    }
    text = decoding(record(label=str), outputs, ("a", "b", "c")).decode(answer, 1)[0]
    assert text.model_dump() == {"label": "a"}  # INT64 isn't text, so the scores say it


def test_two_classes_of_one_label_cant_be_keys() -> None:
    with pytest.raises(ConfigError, match="one label"):
        decoding(record(probabilities=dict[str, float]), {"y": ("FP32", [-1, 2])}, ("a", "a"))


# ---------------------------------------------------------------- wrong answers
@pytest.mark.parametrize(
    ("annotation", "datatype", "array", "part"),
    [
        (float, "FP32", np.zeros(3, np.float32), r"shape \[3\] for 2 records"),
        (float, "FP32", np.float32(1), r"shape \[\] for 2 records"),
        (int, "FP32", np.array([1, 1.5], np.float32), r"record 11 of the answer is no Rec: y: .* integer"),
        (Colour, "BYTES", np.array([b"red", b"green"], object), r"record 11 .* y: "),
        (str, "BYTES", np.array([b"red", b"\xff"], object), r"'y' has an element that isn't UTF-8"),
    ],
)
def test_an_answer_that_doesnt_fit_is_a_protocol_error(
    annotation: Any, datatype: str, array: npt.NDArray[Any], part: str
) -> None:
    with pytest.raises(ProtocolError, match=part) as caught:
        decoding(record(y=annotation), {"y": (datatype, [-1])}).decode({"y": array}, 2, 10)
    assert "green" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_missing_output_is_a_protocol_error() -> None:
    bound = decoding(record(y=float), {"y": ("FP32", [-1])})
    with pytest.raises(ProtocolError, match="'y'"):
        bound.decode({"z": np.zeros(1)}, 1)


def test_bytes_that_arent_text_stay_bytes_where_the_field_takes_both() -> None:
    bound = decoding(record(y=str | bytes), {"y": ("BYTES", [-1])})
    assert [r.model_dump()["y"] for r in bound.decode({"y": np.array([b"a", b"\xff"], object)}, 2)] == ["a", b"\xff"]


# ---------------------------------------------------------------- other models
def test_without_a_signature_names_alone_count() -> None:
    kind = record(x=float, n=int, s=str, b=bool, v=list[int], a=Any, o=(float | None, None))
    bound = Schema(kind, kind).bind(ModelInfo(name="echo"))
    rows = [{"x": 1, "n": 2, "s": "t", "b": True, "v": [1, 2], "a": [0.5], "o": 3.0}, None]
    rows[1] = {**(rows[0] or {}), "n": 5}
    arrays = bound.encode(rows)
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    assert dtypes == {
        "x": "float64",
        "n": "int64",
        "s": "object",
        "b": "bool",
        "v": "int64",
        "a": "float64",
        "o": "float64",
    }
    assert (arrays["v"].shape, bound.batched) == ((2, 2), True)
    back = bound.decode(arrays, 2)
    assert [r.model_dump(exclude={"a"}) for r in back] == [
        {k: v for k, v in row.items() if k != "a"} for row in rows if row
    ]
    with pytest.raises(ProtocolError, match="'x'"):
        bound.decode({"n": np.zeros(1, np.int64)}, 1)
    with pytest.raises(InputError, match="record 7, field 'a': ragged lists"):
        bound.encode([{**(rows[0] or {}), "a": [[1], [1, 2]]}], 7)
    assert Schema(None, record(y=(int, 3))).bind(ModelInfo(name="echo")).decode({}, 2)[1].model_dump() == {"y": 3}


def test_a_model_without_rows_takes_one_record_a_call() -> None:
    signature = info(
        {"x": ("FP32", [2]), "state": ("FP32", [2, 1, 2])}, {"y": ("FP32", []), "state": ("FP32", [2, 1, 2])}
    )
    kind, out = record(x=list[float], state=Any), record(y=float, state=Any)
    bound = Schema(kind, out).bind(signature)
    state = np.ones((2, 1, 2), np.float32)
    arrays = bound.encode([{"x": [1, 2], "state": state}])
    assert not bound.batched
    assert {name: array.shape for name, array in arrays.items()} == {"x": (2,), "state": (2, 1, 2)}
    one = bound.decode({"y": np.float32(0.5), "state": state}, 1)[0].model_dump()
    assert one["y"] == 0.5
    assert equal(one["state"], "float32", state)
    with pytest.raises(InputError, match="one record a call"):
        bound.encode([{"x": [1, 2], "state": state}] * 2)


def test_a_model_of_exactly_one_row_keeps_its_axis() -> None:
    bound = Schema(Flower, Species).bind(info({"x": ("FP32", [1, 2])}, {"y": ("FP32", [1, 3])}))
    assert not bound.batched
    assert equal(bound.encode([Flower(length=1, width=2)])["x"], "float32", [[1, 2]])
    assert bound.decode({"y": SCORES[:1]}, 1)[0].label == "1"


def test_a_bound_without_a_record_type_says_so() -> None:
    with pytest.raises(ConfigError, match="output="):
        encoding(Flower, {"x": ("FP32", [-1, 2])}).decode({}, 0)
    with pytest.raises(ConfigError, match="input="):
        decoding(Species, {"y": ("FP32", [-1, 2])}).encode([])


# ---------------------------------------------------------------- properties, cost
_KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "FP64": (float, st.floats(allow_nan=False)),
    "FP32": (float, st.floats(allow_nan=False, width=32)),
    "FP16": (float, st.floats(allow_nan=False, width=16)),
    "INT64": (int, st.integers(-(2**63), 2**63 - 1)),
    "UINT64": (int, st.integers(0, 2**64 - 1)),
    "INT8": (int, st.integers(-128, 127)),
    "BOOL": (bool, st.booleans()),
    "BYTES": (bytes, st.binary(max_size=9)),
}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), datatype=st.sampled_from(sorted(_KINDS)), rank=st.integers(0, 2), free=st.booleans())
def test_what_goes_in_comes_out(data: st.DataObject, datatype: str, rank: int, free: bool) -> None:
    kind, values = _KINDS[datatype]
    shape = [2, 3][:rank]
    for size in reversed(shape):
        kind, values = list[kind], st.lists(values, min_size=size, max_size=size)  # type: ignore[valid-type]
    specs: Specs = {"x": (datatype, [-1, *([-1] * rank if free else shape)])}
    bound = Schema(record(x=kind), record(x=kind)).bind(info(specs, specs))
    rows = data.draw(st.lists(values, max_size=5))
    arrays = bound.encode([{"x": row} for row in rows])
    assert [r.model_dump()["x"] for r in bound.decode(arrays, len(rows))] == rows


@settings(deadline=None)
@given(rows=st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 3), max_size=6))
def test_columns_keep_their_order(rows: list[tuple[float, float, float]]) -> None:
    kind = record(c=float, a=float, b=float)
    specs: Specs = {"x": ("FP32", [-1, 3])}
    bound = Schema(kind, kind).bind(info(specs, specs))
    records = [kind(**dict(zip("cab", row, strict=True))) for row in rows]
    arrays = bound.encode(records)
    assert arrays["x"].tolist() == [list(row) for row in rows]
    assert bound.decode(arrays, len(rows)) == records


def test_the_module_loads_without_pydantic() -> None:
    code = "import sys; import aiaas_sdk.schema; print(*({'pydantic', 'torch', 'httpx'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_batch_of_records_costs_a_few_microseconds_each() -> None:
    specs: Specs = {"x": ("FP32", [-1, 2])}
    bound = Schema(Flower, Species).bind(info(specs, specs))
    records = [Flower(length=i, width=2) for i in range(1000)]
    watch = Stopwatch()
    bound.decode({"x": bound.encode(records)["x"]}, len(records))
    assert watch.took() < 0.05


def test_annotations_that_arent_resolved_yet_are_told() -> None:
    class Later(BaseModel):
        x: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match="Later has an annotation that can't be resolved"):
        encoding(Later, {"x": ("FP32", [-1])})
