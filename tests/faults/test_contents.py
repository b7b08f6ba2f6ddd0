"""What is in an answer: rows B01 to B11 of the fault catalogue.

What is refused is a ProtocolError after one request, at once, without memory taken on the peer's word.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.faults import Fault, answer, content, edited
from tests.stopwatch import Stopwatch

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Document = dict[str, Any]
Given = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture
def refused(cases: Any) -> Callable[..., str]:
    """Checks that an answer is refused as it must be, and that the next one is taken; gives the message."""

    def check(fault: Fault, *, binary: bool = True, datatype: str = "FP32", x: Any = X, outputs: Any = None) -> str:
        case = cases(binary=binary, datatype=datatype)
        model = case.open()
        case.server.on("predict", fault)
        before = resident()
        watch = Stopwatch()
        with pytest.raises(aiaas.AiaasError) as caught:
            model.predict(x, outputs=outputs)
        assert type(caught.value) is aiaas.ProtocolError
        assert (caught.value.attempts, caught.value.retryable, caught.value.__cause__) == (1, False, None)
        assert watch.took(caught.value.elapsed) < 0.25
        assert len(case.server.requests) == 1
        assert resident() - before < 32
        assert model.predict(x).attempts == 1
        return str(caught.value.message)

    return check


@pytest.fixture
def given(cases: Any) -> Given:
    """The array that comes of an answer that is taken."""

    def check(fault: Fault, *, binary: bool = True, datatype: str = "FP32", x: Any = X) -> Any:
        case = cases(binary=binary, datatype=datatype)
        case.server.on("predict", fault)
        return case.load().predict(x).array

    return check


def output(**members: Any) -> Fault:
    """The right answer, with other members of its output; one that is None is left out."""

    def change(document: Document) -> None:
        entry = document["outputs"][0]
        entry.update(members)
        for name, value in members.items():
            if value is None:
                del entry[name]

    return edited(change)


def sized(size: Any) -> Fault:
    return output(parameters={"binary_data_size": size})


def swapped(before: bytes, after: bytes) -> Fault:
    """An answer in JSON, written by hand: what a JSON library would not write."""
    whole = b'{"model_name":"double","outputs":[{"name":"y","datatype":"FP32","shape":[2,3],"data":[0,2,4,6,8,10]}]}'
    assert before in whole
    return content(whole.replace(before, after), {"content-type": "application/json"})


# ---------------------------------------------------------------- JSON
JSONS = {
    "empty": b"",
    "blank": b" \r\n",
    "cut": b'{"model_name":"double","outputs":[{"name":"y","da',
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "number": b"7",
    "true": b"true",
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "digits": b'{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[' + b"9" * 5000 + b"]}]}",
    "utf-8": b'{"model_name":"\xff\xfe"}',
    "cut utf-8": b'{"model_name":"\xe2\x82"}',
    "utf-16": '{"outputs":[]}'.encode("utf-16"),
    "two documents": b'{"outputs":[]}{"outputs":[]}',
    "nul": b"\x00" * 100,
    "comment": b'{"outputs": [] /* none */}',
}


@pytest.mark.parametrize("body", JSONS.values(), ids=JSONS.keys())
@pytest.mark.parametrize("binary", [True, False])
def test_b01_what_is_no_answer_in_json_is_refused(refused: Any, body: bytes, binary: bool) -> None:
    refused(content(body), binary=binary)
    if binary:
        refused(content(body, {"inference-header-content-length": str(len(body))}))


@pytest.mark.parametrize("member", ["id", "model_name", "model_version"])
def test_b01_a_lone_surrogate_is_refused(refused: Any, member: str) -> None:
    refused(swapped(b'"model_name":"double"', b'"%s":"\\ud800"' % member.encode()))


@pytest.mark.parametrize("verb", ["server", "metadata"])
@pytest.mark.parametrize("body", JSONS.values(), ids=JSONS.keys())
def test_b01_so_it_is_while_opening(case: Any, verb: str, body: bytes) -> None:
    case.server.on(verb, content(body))
    with pytest.raises(aiaas.ProtocolError):
        case.load().predict(X)
    assert len(case.server.of(verb)) == 1


def test_b02_of_a_key_that_comes_twice_the_last_wins(given: Given) -> None:
    twice = swapped(b'"shape":[2,3]', b'"shape":[7],"shape":[2,3]')
    assert given(twice).tolist() == (2 * X).tolist()


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_b03_nan_and_infinity_are_taken_among_floats(given: Given, datatype: str) -> None:
    numbers = b"[NaN,Infinity,-Infinity,1e999,null,1]"
    fault = edited_numbers(datatype, numbers)
    found = given(fault, datatype=datatype, x=X.astype({"FP32": "f4", "FP64": "f8", "FP16": "f2"}[datatype]))
    wanted = [math.nan, math.inf, -math.inf, math.inf, math.nan, 1.0]
    assert np.array_equal(found.ravel(), np.array(wanted), equal_nan=True)


def edited_numbers(datatype: str, numbers: bytes) -> Fault:
    entry = b'{"name":"y","datatype":"%s","shape":[2,3],"data":%s}' % (datatype.encode(), numbers)
    return content(b'{"model_name":"double","outputs":[%s]}' % entry)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", "-1e999"])
@pytest.mark.parametrize("datatype", ["INT32", "UINT8", "INT64", "BOOL"])
def test_b03_among_integers_they_are_refused(refused: Any, number: str, datatype: str) -> None:
    x = X.astype({"INT32": "i4", "UINT8": "u1", "INT64": "i8", "BOOL": "?"}[datatype])
    rest = b"true" if datatype == "BOOL" else b"1"
    numbers = b"[%s]" % b",".join([number.encode(), *[rest] * 5])
    refused(edited_numbers(datatype, numbers), datatype=datatype, x=x)


# ---------------------------------------------------------------- shapes and datatypes
SHAPES: list[Any] = [
    [-2, 3],
    [-2, -3],
    [2.0, 3],
    ["2", 3],
    [None, 3],
    [True, 6],
    [[2], 3],
    {"rows": 2},
    "2,3",
    6,
    None,
    [1] * 70,
    [1] * 68 + [2, 3],
    [1 << 21, 1 << 21],
    [1 << 32, 1 << 32],
    [1 << 63, 2],
    [10**400, 1],
    [2, 4],
    [3, 2],
    [6],
    [1, 2, 3],
    [3],
    [],
    [0, 3],
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=[str(shape)[:30] for shape in SHAPES])
def test_b04_a_shape_that_cannot_be_is_refused(refused: Any, shape: Any, binary: bool) -> None:
    refused(output(shape=shape), binary=binary)


@pytest.mark.parametrize("size", [1 << 42, 1 << 64, 1 << 31])
def test_b04_so_it_is_for_texts(refused: Any, size: int) -> None:
    refused(output(shape=[size]), datatype="BYTES", x=np.array([["a", "b", "c"]], object))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP33", "fp32", "float32", "", None, 32, ["FP32"], "STRING", "FP32\n"])
def test_b05_an_unknown_datatype_is_refused(refused: Any, datatype: Any, binary: bool) -> None:
    refused(output(datatype=datatype), binary=binary)


@pytest.mark.parametrize(("datatype", "dtype"), [("INT32", np.int32), ("UINT32", np.uint32)])
def test_b05_another_datatype_than_was_announced_is_what_it_says_it_is(given: Given, datatype: str, dtype: Any) -> None:
    found = given(output(datatype=datatype))
    assert found.dtype == dtype
    assert found.tobytes() == (2 * X).tobytes()
    found = given(output(datatype="FP64", data=[[1, 2, 3]], shape=[1, 3]), binary=False)
    assert (found.dtype, found.tolist()) == (np.float64, [[1, 2, 3]])


NUMBERS = [
    ("INT8", [300, 1, 1]),
    ("INT8", [-129, 1, 1]),
    ("UINT8", [-1, 1, 1]),
    ("UINT64", [1 << 64, 1, 1]),
    ("INT64", [1 << 63, 1, 1]),
    ("INT64", [1.5, 1, 1]),
    ("INT64", ["1", 1, 1]),
    ("INT32", [True, 1, 1]),
    ("INT32", ["one", 1, 1]),
    ("INT32", [[1], 1, 1]),
    ("FP32", ["1", 1, 1]),
    ("FP32", ["NaN", 1, 1]),
    ("FP32", [True, 1, 1]),
    ("FP32", [[1, 2], [3]]),
    ("FP32", [[1, 2], 3]),
    ("FP32", [{"value": 1}, 1, 1]),
    ("FP32", {"0": 1}),
    ("FP32", "123"),
    ("FP32", 1),
    ("BOOL", [2, 1, 1]),
    ("BOOL", ["true", True, True]),
    ("BYTES", [1, "a", "b"]),
    ("BYTES", [None, "a", "b"]),
    ("BYTES", [["a", "b"], "c"]),
]


@pytest.mark.parametrize(("datatype", "data"), NUMBERS, ids=[f"{kind} {data}"[:40] for kind, data in NUMBERS])
def test_b06_numbers_that_do_not_fit_are_refused(refused: Any, datatype: str, data: Any) -> None:
    dtypes = {"INT8": "i1", "UINT8": "u1", "UINT64": "u8", "INT64": "i8", "INT32": "i4", "FP32": "f4", "BOOL": "?"}
    x = np.array([["a", "b", "c"]], object) if datatype == "BYTES" else np.ones((1, 3), dtypes[datatype])
    refused(output(data=data, shape=[1, 3]), binary=False, datatype=datatype, x=x)


# ---------------------------------------------------------------- bytes
@pytest.mark.parametrize("size", [-1, "24", 1 << 60, 1 << 63, 0, 23, 25, 12, 24.0, True, [24], {}])
def test_b07_a_size_that_is_none_or_not_the_tensors_is_refused(refused: Any, size: Any) -> None:
    refused(sized(size))


def test_b07_a_truth_is_no_size(cases: Any) -> None:
    case = cases(datatype="INT8", shape=(-1, 1))
    x = np.ones((1, 1), np.int8)
    model = case.open()
    case.server.on("predict", sized(1), sized(True))
    assert model.predict(x).array.tolist() == [[2]]
    with pytest.raises(aiaas.ProtocolError, match="is no size"):
        model.predict(x)


@pytest.mark.parametrize("tail", [b"\0", b"x" * 1000])
def test_b07_bytes_that_are_left_over_are_refused(refused: Any, tail: bytes) -> None:
    assert "left over" in refused(edited(lambda document: None, tail=tail))


def test_b07_both_numbers_and_bytes_are_refused(refused: Any) -> None:
    refused(output(data=[0, 2, 4, 6, 8, 10]))
    refused(output(parameters={"binary_data_size": 24}), binary=False)
    refused(output(parameters={}))


@pytest.mark.parametrize(
    "length", ["999999", "-1", "12abc", "", "0x10", "1_0", "+8", " ", "1.0", "9" * 400, "\u0661", "0", "5"]
)
def test_b08_a_head_length_that_is_none_is_refused(refused: Any, length: str) -> None:
    refused(answer({"inference-header-content-length": length.encode().decode("latin-1")}))


def test_b08_a_head_length_that_comes_twice_is_refused(refused: Any) -> None:
    name = "inference-header-content-length"
    refused(answer([(name, "100"), (name, "100")]))
    refused(answer([(name, "100"), (name.title(), "101")]))


def texts(data: bytes, count: int) -> Fault:
    """The right answer with these bytes behind its JSON."""
    entry = {"name": "y", "datatype": "BYTES", "shape": [1, count], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"model_name": "double", "outputs": [entry]}).encode()
    return content(head + data, {"inference-header-content-length": str(len(head))})


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"\xff\xff\xff\xffabc", 1),
        (b"\x04\0\0\0abc", 1),
        (b"\x03\0\0\0abc", 3),
        (b"\x03\0\0\0abc" * 3, 2),
        (b"\x03\0\0", 1),
        (b"", 3),
        (b"\x03\0\0\0abc\0", 1),
        (b"\0\0\0\x80", 1),
    ],
    ids=["4 GiB", "too long", "too few", "too many", "cut length", "none", "left over", "2 GiB"],
)
def test_b09_texts_that_are_not_all_there_are_refused(refused: Any, data: bytes, count: int) -> None:
    refused(texts(data, count), datatype="BYTES", x=np.array([["a", "b", "c"]], object))


# ---------------------------------------------------------------- outputs
OUTPUTS: dict[str, Callable[[Document], Any]] = {
    "absent": lambda document: document.pop("outputs"),
    "null": lambda document: document.update(outputs=None),
    "empty": lambda document: document.update(outputs=[]),
    "an object": lambda document: document.update(outputs=document["outputs"][0]),
    "text": lambda document: document.update(outputs="y"),
    "entries that are none": lambda document: document.update(outputs=[None]),
    "no name": lambda document: document["outputs"][0].pop("name"),
    "name null": lambda document: document["outputs"][0].update(name=None),
    "name 7": lambda document: document["outputs"][0].update(name=7),
    "name empty": lambda document: document["outputs"][0].update(name=""),
    "name twice": lambda document: document["outputs"].append(document["outputs"][0]),
    "parameters": lambda document: document["outputs"][0].update(parameters=[]),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("change", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_b10_outputs_that_are_none_are_refused(refused: Any, change: Any, binary: bool) -> None:
    refused(edited(change), binary=binary)


@pytest.mark.parametrize("binary", [True, False])
def test_b10_another_output_than_was_asked_for_is_refused(refused: Any, binary: bool) -> None:
    renamed = edited(lambda document: document["outputs"][0].update(name="z"))
    assert "'y'" in refused(renamed, binary=binary, outputs=["y"])

    def added(document: Document) -> None:
        document["outputs"].append({"name": "z", "datatype": "INT8", "shape": [1], "data": [1]})

    assert "'z'" in refused(edited(added), binary=binary, outputs=["y"])


def test_b11_the_answer_to_another_call_is_refused(refused: Any) -> None:
    assert "mixed up" in refused(edited(lambda document: document.update(id="another")))


@pytest.mark.parametrize("id", [7, [], True, {}])
def test_b11_an_id_that_is_none_is_refused(refused: Any, id: Any) -> None:
    refused(edited(lambda document: document.update(id=id)))


@pytest.mark.parametrize("id", [None, ""])
def test_b11_a_server_that_gives_no_id_back_is_taken(given: Given, id: Any) -> None:
    assert given(edited(lambda document: document.update(id=id))).tolist() == (2 * X).tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_r44_null_is_as_if_absent(given: Given, binary: bool) -> None:
    def nulls(document: Document) -> None:
        document.update(id=None, model_name=None, model_version=None, parameters=None)
        if not binary:
            document["outputs"][0]["parameters"] = None

    assert given(edited(nulls), binary=binary).tolist() == (2 * X).tolist()


def resident() -> float:
    """MiB of this process that are in memory; 0 where the system doesn't tell."""
    if sys.platform != "linux":
        return 0.0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
