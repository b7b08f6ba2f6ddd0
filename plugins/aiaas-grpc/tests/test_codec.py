"""Messages as bytes and back; no sockets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiaas_grpc.codec import (
    decode_metadata,
    decode_request,
    decode_response,
    encode_metadata,
    encode_request,
    encode_response,
)
from aiaas_grpc.messages import message
from aiaas_grpc.parts import joined, split
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.wire.oip import InferResponse, ModelMetadata

Request, Response = message("inference.ModelInferRequest"), message("inference.ModelInferResponse")


def sample(datatype: str) -> Tensor:
    if datatype == "BYTES":
        elements = np.empty((2, 2), object)
        elements[:] = [[b"\0\0", b"a\0"], [b"", b"\xff" * 300]]
        return Tensor("BYTES", elements)
    return Tensor(datatype, np.array([[0, 1], [1, 0]]).astype(DATATYPES[datatype].dtype))


def asked(inputs: dict[str, Tensor], **options: Any) -> bytes:
    given = {"outputs": (), "id": "7", "parameters": {}, **options}
    return b"".join(encode_request("m", "3", inputs, **given))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_request_and_its_answer_keep_every_byte(datatype: str) -> None:
    tensor = sample(datatype)
    name, version, request = decode_request(asked({"x": tensor}, outputs=["y"], parameters={"timeout": 5, "no": None}))
    assert (name, version, request.id, request.parameters) == ("m", "3", "7", {"timeout": 5})
    assert [output.name for output in request.outputs or ()] == ["y"]
    body = b"".join(encode_response(InferResponse(model_name="m", id="7", outputs={"y": request.inputs["x"]})))
    answer = decode_response(body, outputs=["y"], id="7").outputs["y"]
    assert (answer.datatype, answer.shape) == (datatype, (2, 2))
    assert answer.array.tolist() == tensor.array.tolist()
    assert answer.array.flags.writeable


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (1, 0, 3)])
def test_tensors_without_elements_keep_their_shape(shape: tuple[int, ...]) -> None:
    body = asked({"x": Tensor("FP32", np.empty(shape, np.float32)), "s": Tensor("BYTES", np.empty(shape, object))})
    inputs = decode_request(body)[2].inputs
    assert [tensor.shape for tensor in inputs.values()] == [shape, shape]


def test_protobuf_reads_what_is_written_in_parts() -> None:
    made = Request.FromString(asked({"x": sample("FP32"), "s": sample("BYTES")}))
    assert made.model_name == "m"
    assert [len(content) for content in made.raw_input_contents] == [16, 16 + 304]


@given(st.lists(st.binary(max_size=300), max_size=5), st.text(max_size=20))
def test_parts_come_apart_as_they_were_joined(contents: list[bytes], name: str) -> None:
    head = Request(model_name=name).SerializeToString()
    found, raw = split(b"".join(joined(head, 7, contents)), 7)
    assert (found, [bytes(view) for view in raw]) == (head, contents)


@given(st.binary(max_size=60))
def test_rubbish_is_a_protocol_error_and_nothing_else(body: bytes) -> None:
    try:
        decode_response(body, outputs=(), id="7")
    except ProtocolError:
        return


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT16", "INT64", "UINT64", "FP32", "FP64", "BYTES", "FP16"])
def test_typed_contents_are_read(datatype: str) -> None:
    field = {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "UINT16": "uint_contents",
        "INT64": "int64_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
        "FP16": "bytes_contents",
    }[datatype]
    values: list[Any] = [b"\0a", b""] if datatype == "BYTES" else [1, 0]
    sent = [np.float16(1).tobytes() + np.float16(0).tobytes()] if datatype == "FP16" else values
    made = Response(model_name="m")
    output = made.outputs.add(name="y", datatype=datatype, shape=[2])
    getattr(output.contents, field).extend(sent)
    answer = decode_response(made.SerializeToString(), outputs=(), id="7").outputs["y"]
    assert answer.datatype == datatype
    assert answer.array.tolist() == values


def built(**change: Any) -> bytes:
    made = Response(model_name="m", id="7")
    output = made.outputs.add(name="y", datatype="FP32", shape=[1])
    raw = change.pop("raw", [b"\0\0\x80?"])
    for name, value in change.items():
        if name == "shape":
            output.ClearField("shape")
            output.shape.extend(value)
        elif name == "typed":
            output.contents.fp32_contents.extend(value)
        elif name == "twice":
            made.outputs.add(name="y", datatype="FP32", shape=[1])
        else:
            setattr(made if name == "id" else output, name, value)
    made.raw_output_contents.extend(raw)
    written: bytes = made.SerializeToString()
    return written


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "8"}, "another request"),
        ({"raw": [b"1234", b"1234"]}, "2 raw contents for 1 outputs"),
        ({"raw": [b"123"]}, "3 bytes"),
        ({"typed": [1.0]}, "both raw and typed"),
        ({"raw": []}, "'y'"),
        ({"twice": True, "raw": [b"1234", b"1234"]}, "stands twice"),
        ({"name": ""}, "no name"),
        ({"datatype": "FP99"}, "unknown datatype 'FP99'"),
        ({"datatype": "BF16", "raw": []}, "raw contents only"),
        ({"shape": [-1]}, "shape"),
        ({"shape": [2**40, 2**40]}, "too large"),
    ],
)
def test_an_answer_that_cant_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_response(built(**change), outputs=(), id="7")


def test_outputs_are_those_that_were_asked_for() -> None:
    with pytest.raises(ProtocolError, match="missing: z"):
        decode_response(built(), outputs=["z"], id="7")
    with pytest.raises(ProtocolError, match="no outputs"):
        decode_response(Response(model_name="m").SerializeToString(), outputs=(), id="7")


def test_what_a_message_cant_hold_is_refused_before_it_is_copied() -> None:
    untouched = np.zeros((550_000_000,), np.float32)  # 2.2 GB that the system hands out when they are written to
    with pytest.raises(InputError, match="at most 2147483647"):
        asked({"x": Tensor("FP32", untouched)})


def test_a_request_for_what_isnt_offered_is_refused() -> None:
    made = Request(model_name="m")
    made.outputs.add(name="y").parameters["classification"].int64_param = 3
    with pytest.raises(InputError, match="classification isn't offered"):
        decode_request(made.SerializeToString())
    made = Request(model_name="m")
    made.inputs.add(name="x", datatype="FP32", shape=[1]).parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InputError, match="shared memory"):
        decode_request(made.SerializeToString())


def test_metadata_with_its_facts() -> None:
    facts = {"labels": ["a", "b"], "device": "cpu", "ok": True, "n": 3, "f": 0.5, "huge": 2**70, "none": None}
    told = ModelMetadata(
        name="m",
        versions=("1", "2"),
        platform="p",
        inputs=(TensorSpec("x", "FP32", (-1, 3)),),
        outputs=(TensorSpec("y", "BYTES", ()),),
        parameters=facts,
    )
    found = decode_metadata(encode_metadata(told))
    assert (found.name, found.versions, found.platform) == ("m", ("1", "2"), "p")
    assert (found.inputs, found.outputs) == (told.inputs, told.outputs)
    assert found.parameters == {**{k: v for k, v in facts.items() if v is not None}, "huge": str(2**70)}
