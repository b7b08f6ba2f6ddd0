"""The codecs of the Open Inference Protocol: round trips, golden bytes, and answers that can't be right."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.wire import heads, oip
from aiaas_sdk.wire.layouts import MOST, Layouts
from aiaas_sdk.wire.oip import (
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    Message,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

JSON_DATATYPES = sorted({*DATATYPES} - {"FP16", "BF16"})
shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)


def tensor_of(datatype: str, shape: tuple[int, ...], seed: int, *, text: bool = False) -> Tensor:
    """Random bits of that datatype: NaN and subnormals too, unless they must be text."""
    rng = np.random.default_rng(seed)
    kind = DATATYPES[datatype]
    count = int(np.prod(shape, dtype=np.int64))
    if datatype == "BYTES":
        array = np.empty(count, object)
        for index in range(count):
            array[index] = b"a\xc3\xa9\0" * int(rng.integers(0, 3)) if text else rng.bytes(int(rng.integers(0, 9)))
        return Tensor("BYTES", array.reshape(shape))
    if datatype == "BOOL":
        return Tensor("BOOL", rng.integers(0, 2, shape).astype(bool))
    if text and kind.dtype.kind == "f":
        return Tensor(datatype, np.asarray(rng.standard_normal(shape), kind.dtype))
    return Tensor(datatype, np.frombuffer(rng.bytes(count * kind.dtype.itemsize), kind.dtype).reshape(shape))


def received(message: Message) -> tuple[dict[str, str], memoryview]:
    headers = {name.lower(): value for name, value in message.headers.items()}
    return headers, memoryview(b"".join(bytes(part) for part in message.body))


def same(a: Tensor, b: Tensor) -> bool:
    if a.datatype != b.datatype or a.shape != b.shape:
        return False
    if a.datatype == "BYTES":
        return bool(a.array.tolist() == b.array.tolist())
    return bool(np.ascontiguousarray(a.array).tobytes() == np.ascontiguousarray(b.array).tobytes())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(DATATYPES)), shapes, st.sampled_from(sorted(DATATYPES)), shapes, st.integers(0, 2**32))
def test_binary_keeps_every_bit_both_ways(one: str, shape: Any, two: str, other: Any, seed: int) -> None:
    tensors = {"a": tensor_of(one, shape, seed), "b": tensor_of(two, other, seed + 1)}
    request = decode_request(*received(encode_request(tensors, outputs=None, binary=True, id="7")))
    assert all(same(tensors[name], request.inputs[name]) for name in tensors)
    message = encode_response(InferResponse(model_name="m", model_version="3", id="7", outputs=tensors), request)
    response = decode_response(*received(message), outputs=["a", "b"], id="7")
    assert (response.model_name, response.model_version) == ("m", "3")
    assert all(same(tensors[name], response.outputs[name]) for name in tensors)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(JSON_DATATYPES), shapes, st.integers(0, 2**32))
def test_json_keeps_every_number(datatype: str, shape: Any, seed: int) -> None:
    tensors = {"a": tensor_of(datatype, shape, seed, text=True)}
    request = decode_request(*received(encode_request(tensors, outputs=["a"], binary=False)))
    assert same(tensors["a"], request.inputs["a"])


def test_golden_bytes_of_the_binary_extension() -> None:
    tensors = {
        "x": Tensor("FP32", np.array([1.0, -2.0], np.float32)),
        "s": Tensor("BYTES", np.array([b"ab", b""], object)),
    }
    headers, body = received(encode_request(tensors, outputs=None, binary=True))
    length = int(headers[HEADER_LENGTH])
    assert headers["content-type"] == "application/octet-stream"
    assert json.loads(bytes(body[:length])) == {
        "inputs": [
            {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}},
        ],
        "parameters": {"binary_data_output": True},
    }
    assert bytes(body[length:]) == b"\x00\x00\x80\x3f\x00\x00\x00\xc0" + b"\x02\x00\x00\x00ab\x00\x00\x00\x00"


def test_a_large_tensor_is_sent_without_a_copy() -> None:
    array = np.ones((1024, 1024), np.float32)
    parts = encode_request({"x": Tensor("FP32", array)}, outputs=None, binary=True).body
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts if len(part) == array.nbytes)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_json_has_not_got_is_refused_before_sending(datatype: str) -> None:
    with pytest.raises(InputError, match=datatype):
        encode_request({"x": tensor_of(datatype, (2,), 0)}, outputs=None, binary=False)
    with pytest.raises(InputError, match=r"(?i)nan"):
        encode_request({"x": Tensor("FP32", np.array([np.nan], np.float32))}, outputs=None, binary=False)


def output(**changes: Any) -> bytes:
    entry = {"name": "y", "shape": [2], "datatype": "INT8", "data": [1, 2], **changes}
    return json.dumps({"model_name": "m", "outputs": [entry]}).encode()


BAD_ANSWERS = {
    "empty": b"",
    "cut": b'{"model_name":"m","outputs":[',
    "null": b"null",
    "list": b"[]",
    "brackets": b"[" * 100_000,
    "digits": b'{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[' + b"9" * 5000 + b"]}]}",
    "utf-8": b'{"model_name":"\xff"}',
    "nan in integers": output(data=[1, float("nan")]),
    "negative shape": output(shape=[-2]),
    "float shape": output(shape=[2.0]),
    "null shape": output(shape=None),
    "rank": output(shape=[1] * 70),
    "2^42": output(shape=[2**21, 2**21]),
    "2^64": output(shape=[2**32, 2**32]),
    "too few": output(shape=[3]),
    "datatype": output(datatype="INT9"),
    "300": output(data=[1, 300]),
    "1.5": output(data=[1, 1.5]),
    "words": output(data=["1", "2"]),
    "ragged": output(data=[[1], 2]),
    "no outputs": b'{"model_name":"m"}',
    "outputs null": b'{"outputs":null}',
    "no name": json.dumps({"outputs": [{"shape": [1], "datatype": "INT8", "data": [1]}]}).encode(),
    "other name": output(name="z"),
    "binary size without header": output(data=None, parameters={"binary_data_size": 2}),
}


@pytest.mark.parametrize("body", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_an_answer_that_cannot_be_right_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_response({"content-type": "application/json"}, memoryview(body), outputs=["y"])


@pytest.mark.parametrize("size", [-1, "2", 2**60, 3, True])
def test_a_binary_size_that_cannot_be_right_is_refused(size: Any) -> None:
    entry = {"name": "y", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": size}}
    head = json.dumps({"outputs": [entry]}).encode()
    with pytest.raises(ProtocolError):
        decode_response({HEADER_LENGTH: str(len(head))}, memoryview(head + b"\1\2"))


@pytest.mark.parametrize("length", ["-1", "12abc", "99999", "", "1_0"])
def test_a_header_length_that_cannot_be_right_is_refused(length: str) -> None:
    with pytest.raises(ProtocolError):
        decode_response({HEADER_LENGTH: length}, memoryview(output()))


def test_the_answer_to_another_request_is_refused() -> None:
    body = json.dumps({"id": "8", "outputs": [{"name": "y", "shape": [1], "datatype": "INT8", "data": [1]}]}).encode()
    with pytest.raises(ProtocolError, match="mixed up"):
        decode_response({}, memoryview(body), id="7")


def test_null_and_nan_are_numbers_that_are_missing() -> None:
    output = b'{"name":"y","shape":[3],"datatype":"FP32","parameters":null,"data":[null,NaN,1]}'
    body = b'{"id":null,"parameters":null,"outputs":[' + output + b"]}"
    values = decode_response({}, memoryview(body)).outputs["y"].array
    assert np.array_equal(values, np.array([np.nan, np.nan, 1], np.float32), equal_nan=True)


# ---------------------------------------------------------------- layouts of answers before
@st.composite
def answers(draw: st.DrawFn) -> list[tuple[str, dict[str, str], bytes, list[str] | None]]:
    """Answers of one model as they come: ids, headers, bodies, and what was asked for."""
    forms = draw(st.lists(st.tuples(st.sampled_from(sorted(DATATYPES)), shapes), min_size=1, max_size=2))
    found = []
    for number in range(draw(st.integers(2, 4))):
        sent = f"id-{number:04x}"
        tensors = {f"y{at}": tensor_of(*form, draw(st.integers(0, 9))) for at, form in enumerate(forms)}
        request = decode_request(
            *received(
                encode_request({"x": Tensor("FP32", np.zeros(1, np.float32))}, outputs=None, binary=True, id=sent)
            )
        )
        headers, body = received(encode_response(InferResponse(model_name="m", outputs=tensors), request))
        text = draw(
            st.sampled_from(
                [
                    body.tobytes(),
                    body.tobytes().replace(
                        sent.encode(), draw(st.sampled_from([sent.encode(), b"id-0000", b"id-0001"]))
                    ),
                    body.tobytes()[: len(body) - draw(st.integers(0, 1))],
                ]
            )
        )
        at = draw(st.one_of(st.none(), st.integers(0, max(0, len(text) - 1))))
        if at is not None and text and draw(st.booleans()):
            text = text[:at] + draw(st.sampled_from([b"\0", b'"', b"9", b"}"])) + text[at + 1 :]
        found.append((sent, headers, text, draw(st.sampled_from([None, list(tensors), ["y0"]]))))
    return found


@given(answers())
@settings(max_examples=300, deadline=None)
def test_an_answer_is_read_as_it_is_whatever_came_before_it(
    came: list[tuple[str, dict[str, str], bytes, list[str] | None]],
) -> None:
    layouts = Layouts()
    for sent, headers, body, outputs in came:
        alone, again = (read(headers, body, id=sent, outputs=outputs, layouts=seen) for seen in (None, layouts))
        assert type(alone) is type(again)
        if isinstance(alone, str):
            assert alone == again
            continue
        assert (alone.model_name, alone.model_version, alone.parameters) == (
            again.model_name,
            again.model_version,
            again.parameters,
        )
        assert list(alone.outputs) == list(again.outputs)
        assert all(same(alone.outputs[name], again.outputs[name]) for name in alone.outputs)


def read(headers: dict[str, str], body: bytes, **asked: Any) -> InferResponse | str:
    try:
        return decode_response(headers, memoryview(bytearray(body)), **asked)
    except ProtocolError as error:
        return str(error)


def test_what_is_remembered_of_answers_is_bounded_and_spares_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts, parsed = Layouts(), []
    parse = oip.parsed
    monkeypatch.setattr(oip, "parsed", lambda head: (parsed.append(1), parse(head))[1])
    for size in (*range(1, 100), 99, 99):
        for number in range(2):
            request = InferRequest(inputs={}, id=f"r{size}-{number}", binary_default=True, speaks_binary=True)
            outputs = {"y": Tensor("FP32", np.full(size, number, np.float32))}
            message = encode_response(InferResponse(model_name="m", outputs=outputs), request)
            answer = decode_response(*received(message), id=request.id, layouts=layouts)
            assert answer.outputs["y"].array.tolist() == [number] * size
    assert len(parsed) == 99
    assert len(layouts._known) <= MOST


# ---------------------------------------------------------------- heads of answers before
def test_an_answer_is_written_as_it_is_whatever_was_written_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip, "_around", {})

    def told(name: str, version: str | None, id: str | None, size: int, *, binary: bool = True) -> dict[str, Any]:
        request = InferRequest(inputs={}, id=id, binary_default=binary)
        outputs = {"y": Tensor("FP32", np.full(size, 0.5, np.float32)), "z": Tensor("INT8", np.ones(size, np.int8))}
        headers, body = received(
            encode_response(InferResponse(model_name=name, model_version=version, outputs=outputs), request)
        )
        length = int(headers.get(HEADER_LENGTH, len(body)))
        assert bytes(body[length:]) == (b"\0\0\0\x3f" * size + b"\1" * size if binary else b"")
        assert not binary or length % 64 == 0
        found: dict[str, Any] = json.loads(bytes(body[:length]))
        assert [output["shape"] for output in found.pop("outputs")] == [[size], [size]]
        return found

    for _ in range(2):
        for id in ("7", "", 'a"b\\', "é", '"id":'):
            assert told("m", "3", id, 2) == {"model_name": "m", "model_version": "3", "id": id}
        assert told("m", "3", None, 2) == {"model_name": "m", "model_version": "3"}
        assert told("m", None, "7", 2) == {"model_name": "m", "id": "7"}
        assert told('n"', "3", "7", 4) == {"model_name": 'n"', "model_version": "3", "id": "7"}
        assert told("m", "3", "8", 2, binary=False) == {"model_name": "m", "model_version": "3", "id": "8"}
    assert len(oip._around) == 3
    for size in range(2 * heads.MOST):
        told("m", "3", "7", size)
    assert len(oip._around) <= heads.MOST
