"""Requests and responses as bytes, and back: both sides of the protocol.

What is sent holds its tensors as raw bytes; what is read may hold them in either form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from aiaas_grpc.messages import RAW_INPUTS, RAW_OUTPUTS, STREAMED, message
from aiaas_grpc.parts import joined, split
from aiaas_sdk import tensors
from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, MAX_RANK, Tensor
from aiaas_sdk.wire.oip import InferRequest, InferResponse, ModelMetadata, RequestedOutput
from aiaas_sdk.wire.status import clean

__all__ = [
    "FINAL",
    "LARGEST",
    "Streamed",
    "decode_metadata",
    "decode_request",
    "decode_response",
    "decode_streamed",
    "encode_metadata",
    "encode_request",
    "encode_response",
    "encode_streamed",
    "named_in",
    "parsed",
]

LARGEST = 2**31 - 1
"""Bytes of a message that any implementation of protobuf takes."""
FINAL = "triton_final_response"
"""The parameter of a response in a stream that says whether it is its request's last."""
STATUS = "status"
"""The parameter of an error in a stream with HTTP's status for it: our server's addition, as Triton has words alone."""

_InferRequest, _InferResponse = message("inference.ModelInferRequest"), message("inference.ModelInferResponse")
_Metadata = message("inference.ModelMetadataResponse")
_StreamResponse = message("inference.ModelStreamInferResponse")

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    "FP16": "bytes_contents",  # MLServer's way; the protocol has none
}


def parsed(kind: Any, body: bytes) -> Any:
    """A message of the class `kind`.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return kind.FromString(body)
    except DecodeError:
        raise ProtocolError(f"the message isn't {with_article(kind.DESCRIPTOR.name)}") from None


# ---------------------------------------------------------------- requests
def encode_request(
    model: str,
    version: str,
    inputs: Mapping[str, Tensor],
    *,
    outputs: Sequence[str],
    id: str,
    parameters: Mapping[str, Any],
) -> tuple[Buffer, ...]:
    """An infer request in its parts; `outputs` empty means all.

    Raises:
        InputError: it is larger than a message can be, or a name can't be written.
    """
    try:
        made = _InferRequest(model_name=model, model_version=version, id=id)
        _put(made.parameters, parameters)
        contents = _add_tensors(made.inputs, inputs)
        for name in outputs:
            made.outputs.add(name=name)
        return _bounded(joined(made.SerializeToString(), RAW_INPUTS, contents))
    except UnicodeEncodeError:
        raise InputError("a name holds characters that can't be sent") from None


def decode_request(body: bytes) -> tuple[str, str | None, InferRequest]:
    """The model's name, its version and what is asked of it.

    Raises:
        InputError: it can't be understood, or asks for what isn't offered.
    """
    try:
        head, raw = split(body, RAW_INPUTS)
        made = parsed(_InferRequest, head)
        request = InferRequest(
            id=made.id or None,
            inputs=_tensors(made.inputs, raw, "input"),
            outputs=[RequestedOutput(output.name) for output in made.outputs] or None,
            speaks_binary=True,
            parameters=_parameters(made.parameters),
        )
    except ProtocolError as error:
        raise InputError(error.message, hint=error.hint) from None
    _check_offered(made)
    return made.model_name, made.model_version or None, request


def named_in(body: bytes) -> tuple[str, str]:
    """The model's name and the id of a request that may be wrong otherwise; empty where it can't be read at all."""
    try:
        made = parsed(_InferRequest, split(body, RAW_INPUTS)[0])
    except ProtocolError:
        return "", ""
    return made.model_name, made.id


def _check_offered(made: Any) -> None:
    """Refuse what changes the meaning of the answer and isn't offered; anything else unknown is passed over."""
    for output in made.outputs:
        if "classification" in output.parameters:
            raise InputError(f"output '{clean(output.name, 80)}': classification isn't offered; take its scores")
        if "shared_memory_region" in output.parameters:
            raise InputError(f"output '{clean(output.name, 80)}': shared memory isn't offered")


# ---------------------------------------------------------------- responses
def encode_response(response: InferResponse) -> tuple[Buffer, ...]:
    """An infer response in its parts.

    Raises:
        InputError: it is larger than a message can be.
    """
    made = _InferResponse(
        model_name=response.model_name, model_version=response.model_version or "", id=response.id or ""
    )
    _put(made.parameters, response.parameters)
    contents = _add_tensors(made.outputs, response.outputs)
    return _bounded(joined(made.SerializeToString(), RAW_OUTPUTS, contents))


def decode_response(body: bytes, *, outputs: Sequence[str], id: str) -> InferResponse:
    """An infer response. Its tensors have memory of their own, which may be written to.

    Args:
        body: the message.
        outputs: the names that were asked for, exactly which must have come; empty for any.
        id: the id that was sent; an answer with another one is refused.

    Raises:
        ProtocolError: it can't be understood, or answers something else.
    """
    answer = _response(body, id)
    if not answer.outputs:
        raise ProtocolError("the answer has no outputs")
    if outputs and set(outputs) != set(answer.outputs):
        missing = ", ".join(sorted(set(outputs) - set(answer.outputs))) or "none"
        raise ProtocolError(f"the answer has other outputs than were asked for; missing: {missing}")
    return answer


def _response(body: Buffer, id: str) -> InferResponse:
    head, raw = split(body, RAW_OUTPUTS)
    made = parsed(_InferResponse, head)
    if made.id not in ("", id):
        raise ProtocolError("the answer has the id of another request: answers were mixed up")
    return InferResponse(
        model_name=made.model_name,
        model_version=made.model_version or None,
        id=made.id or None,
        outputs=_tensors(made.outputs, raw, "output"),
        parameters=_parameters(made.parameters),
    )


# ---------------------------------------------------------------- a stream's responses
@dataclass(frozen=True, slots=True)
class Streamed:
    """One response of a stream.

    Attributes:
        response: what the model gave; without outputs where it only says that there is no more.
        error: the peer's words where the request failed, and HTTP's status for it, where it tells one.
    """

    response: InferResponse
    error: str | None = None
    status: int | None = None

    @property
    def final(self) -> bool:
        """Whether no response comes after it; what isn't told is taken to be none."""
        return self.error is not None or self.response.parameters.get(FINAL) is True


def encode_streamed(response: InferResponse, error: str = "", status: int | None = None) -> bytes:
    """A response of a stream, or with its id the error that its request ended with.

    Raises:
        InputError: it is larger than a message can be.
    """
    head = b""
    if error:
        head = _StreamResponse(error_message=error).SerializeToString()
        told = {STATUS: status, FINAL: True}
        response = InferResponse(model_name=response.model_name, id=response.id, outputs={}, parameters=told)
    return b"".join(_bounded(joined(head, STREAMED, [b"".join(encode_response(response))])))


def decode_streamed(body: bytes, *, id: str) -> Streamed:
    """A response of a stream that was asked with this id.

    Raises:
        ProtocolError: it can't be understood, or answers something else.
    """
    others, found = split(body, STREAMED)
    error = parsed(_StreamResponse, others).error_message
    if not error:
        return Streamed(_response(found[0] if found else b"", id))
    told = _response(found[0], id) if found else InferResponse(model_name="", outputs={})
    status = told.parameters.get(STATUS)
    return Streamed(told, error, status if type(status) is int and 400 <= status < 600 else None)


# ---------------------------------------------------------------- tensors
def _add_tensors(entries: Any, given: Mapping[str, Tensor]) -> list[Buffer]:
    contents = []
    for name, tensor in given.items():
        entries.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        contents.append(tensors.to_bytes(tensor))
    return contents


def _bounded(parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
    size = sum(map(len, parts))
    if size > LARGEST:
        raise InputError(
            f"the tensors make a message of {size} bytes, and gRPC's hold at most {LARGEST}",
            hint="Send fewer rows, or use the model's HTTP endpoint",
        )
    return parts


def _tensors(entries: Iterable[Any], raw: Sequence[memoryview], kind: str) -> dict[str, Tensor]:
    entries = list(entries)
    if raw and len(raw) != len(entries):
        raise ProtocolError(f"there are {len(raw)} raw contents for {len(entries)} {kind}s")
    found: dict[str, Tensor] = {}
    for place, entry in enumerate(entries):
        where = f"{kind} {entry.name[:80]!r}"
        if not entry.name or entry.name in found:
            raise ProtocolError(f"{where} stands twice" if entry.name else f"an {kind} has no name")
        if entry.datatype not in DATATYPES:
            raise ProtocolError(f"{where} has an unknown datatype '{clean(entry.datatype, 80)}'")
        if "shared_memory_region" in entry.parameters:
            raise ProtocolError(f"{where} lies in shared memory, which isn't offered")
        found[entry.name] = _raw_tensor(entry, raw[place], where) if raw else _typed_tensor(entry, where)
    return found


def _raw_tensor(entry: Any, content: memoryview, where: str) -> Tensor:
    if entry.HasField("contents") and entry.contents.ByteSize():
        raise ProtocolError(f"{where} has contents both raw and typed")
    # a copy, which is aligned and may be written to: a message lies in memory that is neither
    return tensors.from_bytes(entry.datatype, list(entry.shape), memoryview(bytearray(content)), where)


def _typed_tensor(entry: Any, where: str) -> Tensor:
    datatype, shape = entry.datatype, list(entry.shape)
    if datatype not in _CONTENTS:
        raise ProtocolError(f"{where} is {datatype}, which travels as raw contents only")
    values = getattr(entry.contents, _CONTENTS[datatype])
    if datatype == "FP16":
        return tensors.from_bytes(datatype, shape, memoryview(bytearray(b"".join(values))), where)
    if datatype == "BYTES":
        content = b"".join(len(value).to_bytes(4, "little") + value for value in values)
        return tensors.from_bytes(datatype, shape, content, where)
    return tensors.from_json(datatype, shape, list(values), where)


# ---------------------------------------------------------------- metadata
def encode_metadata(metadata: ModelMetadata) -> bytes:
    """The answer to ModelMetadata."""
    made = _Metadata(name=metadata.name, versions=metadata.versions, platform=metadata.platform)
    for entries, specs in ((made.inputs, metadata.inputs), (made.outputs, metadata.outputs)):
        for spec in specs:
            entries.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    _put(made.parameters, metadata.parameters)
    written: bytes = made.SerializeToString()
    return written


def decode_metadata(body: bytes) -> ModelMetadata:
    """What a server says of a model.

    Raises:
        ProtocolError: it can't be understood.
    """
    made = parsed(_Metadata, body)
    if not made.name:
        raise ProtocolError("the model's metadata has no name")
    return ModelMetadata(
        name=made.name,
        versions=tuple(made.versions),
        platform=made.platform,
        inputs=_specs(made.inputs, "input"),
        outputs=_specs(made.outputs, "output"),
        parameters=_parameters(made.parameters),
    )


def _specs(entries: Any, kind: str) -> tuple[TensorSpec, ...]:
    found: dict[str, TensorSpec] = {}
    for entry in entries:
        where = f"{kind} {entry.name[:80]!r}"
        if not entry.name or not entry.datatype or entry.name in found:
            raise ProtocolError(f"the model's metadata has an {kind} without a name of its own or without a datatype")
        if len(entry.shape) > MAX_RANK or any(axis < -1 for axis in entry.shape):
            raise ProtocolError(f"the shape of {where} isn't a list of sizes")
        found[entry.name] = TensorSpec(entry.name, entry.datatype, tuple(entry.shape))
    return tuple(found.values())


# ---------------------------------------------------------------- parameters
def _put(parameters: Any, given: Mapping[str, Any]) -> None:
    """Write parameters; None is left out, and what isn't plain goes as JSON."""
    for name, value in given.items():
        if value is None:
            continue
        kind, sent = _parameter(value)
        setattr(parameters[name], kind, sent)


def _parameter(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "bool_param", value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "int64_param", value
    if isinstance(value, float):
        return "double_param", value
    return "string_param", value if isinstance(value, str) else json.dumps(value, default=str)


def _parameters(made: Any) -> dict[str, Any]:
    return {name: _value(made[name]) for name in made}


def _value(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    value: Any = None if kind is None else getattr(parameter, kind)
    if kind == "string_param" and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
