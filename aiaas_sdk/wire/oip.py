"""The Open Inference Protocol, version 2, over REST, with the binary tensor data extension.

Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md`; Triton's
`docs/protocol/extension_binary_data.md`. Both sides are here: a client encodes requests and decodes
responses, a server the other way round. Header names are lower case.

Decoding is strict about what a tensor is (type, shape, size, range) and tolerant of what servers add:
`null` for an absent member, unknown members, data nested or flat, bare NaN and Infinity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError, to_json

from aiaas_sdk import tensors
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, MAX_RANK, Tensor
from aiaas_sdk.wire import heads
from aiaas_sdk.wire.inference import (
    InferRequest,
    InferResponse,
    Message,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
)
from aiaas_sdk.wire.layouts import Layout, Layouts, Piece
from aiaas_sdk.wire.reading import (
    check_plain,
    count_in,
    flag_in,
    list_of,
    name_in,
    object_of,
    parameters_in,
    parsed,
    quoted,
    text_in,
    texts_in,
)

__all__ = [
    "HEADER_LENGTH",
    "InferRequest",
    "InferResponse",
    "Message",
    "ModelMetadata",
    "RequestedOutput",
    "ServerMetadata",
    "decode_metadata",
    "decode_request",
    "decode_response",
    "decode_server",
    "encode_metadata",
    "encode_request",
    "encode_response",
    "encode_server",
]

HEADER_LENGTH = "inference-header-content-length"
"""The header with the number of bytes of JSON before the tensors; absent where the body is all JSON."""
_ALIGNMENT = 64  # bytes; a cache line, and what AVX-512 likes


# ---------------------------------------------------------------- encoding
def encode_request(
    inputs: Mapping[str, Tensor],
    *,
    outputs: Sequence[str] | None,
    binary: bool,
    id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    json_fp16: bool = False,
) -> Message:
    """An infer request.

    Args:
        inputs: the tensors, in the order in which they travel.
        outputs: the names asked for; None for all.
        binary: tensors as bytes both ways (the peer has the binary tensor data extension), else as JSON.
        id: the request's id.
        parameters: the request's own parameters; a None among them is left out.
        json_fp16: the peer is known to take FP16 as JSON numbers (MLServer does; Triton and KServe don't).

    Raises:
        InputError: a tensor can't travel as JSON (BF16, FP16, NaN, infinity, bytes that aren't UTF-8).
    """
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    if binary and outputs is None:
        given["binary_data_output"] = True
    document: dict[str, Any] = {} if id is None else {"id": id}
    if given:
        document["parameters"] = given
    document["inputs"] = entries = []
    parts: list[Buffer] = []
    for name, tensor in inputs.items():
        if not binary:
            _check_json(name, tensor, json_fp16)
        part = tensors.to_bytes(tensor) if binary else None
        entries.append(_entry(name, tensor, part))
        if part is not None:
            parts.append(part)
    if outputs is not None:
        wish = {"parameters": {"binary_data": True}} if binary else {}
        document["outputs"] = [{"name": name, **wish} for name in outputs]
    return _framed(_text_of(document), parts, binary)


def encode_response(response: InferResponse, request: InferRequest) -> Message:
    """The response to a request, each output in the form that the request asked for (`wants_binary`).

    The request's id goes back unless the response has one. NaN and infinities in JSON become null, as KServe
    and MLServer write them.

    Raises:
        InputError: a BYTES output isn't UTF-8 and was asked for as JSON.
    """
    answer_id = response.id if response.id is not None else request.id
    parts: dict[str, Buffer] = {}
    form: list[Any] = [response.model_name, response.model_version]
    for name, tensor in response.outputs.items():
        if request.wants_binary(name, tensor.datatype):
            part = parts[name] = tensors.to_bytes(tensor)
            form += (name, tensor.datatype, tensor.shape, len(part))
    alike = len(parts) == len(response.outputs) and not response.parameters
    around = _around.get(tuple(form)) if alike else None
    if around is None:
        around = _written(response, parts)
        if alike:
            _keep(tuple(form), around)
    head = around[0] + around[1] if answer_id is None else b'%b,"id":%b%b' % (around[0], _text_of(answer_id), around[1])
    return _framed(head, list(parts.values()), bool(parts))


def _written(response: InferResponse, parts: Mapping[str, Buffer]) -> tuple[bytes, bytes]:
    """The JSON of a response before and behind its id; `parts` are the outputs that are bytes."""
    front: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        front["model_version"] = response.model_version
    rest: dict[str, Any] = {"parameters": dict(response.parameters)} if response.parameters else {}
    rest["outputs"] = [_entry(name, tensor, parts.get(name)) for name, tensor in response.outputs.items()]
    return _text_of(front)[:-1], b"," + _text_of(rest)[1:]


_around: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}
"""The JSON around the id of answers whose tensors are bytes: they differ in nothing else. Safe across threads."""


def _keep(form: tuple[Any, ...], around: tuple[bytes, bytes]) -> None:
    if len(around[1]) <= heads.LONGEST:
        if len(_around) >= heads.MOST:
            _around.clear()
        _around[form] = around


def _entry(name: str, tensor: Tensor, part: Buffer | None) -> dict[str, Any]:
    """A tensor in the JSON; `part` is what it is as bytes, None where its elements stand there."""
    entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if part is not None:
        entry["parameters"] = {"binary_data_size": len(part)}
    else:
        try:
            entry["data"] = tensors.to_json(tensor)
        except InputError as error:
            raise InputError(f"tensor {name!r}: {error.message}", hint=error.hint) from None
    return entry


def _check_json(name: str, tensor: Tensor, json_fp16: bool) -> None:
    if tensor.datatype == "BF16" or (tensor.datatype == "FP16" and not json_fp16):
        raise InputError(
            f"input {name!r} is {tensor.datatype}, which JSON hasn't got, and this endpoint takes JSON only",
            hint="Use an endpoint with the binary tensor data extension, or a model with FP32 inputs",
        )
    if tensor.datatype in ("FP16", "FP32", "FP64") and not np.isfinite(tensors.storage(tensor)).all():
        raise InputError(
            f"input {name!r} holds NaN or infinity, and this endpoint takes JSON only, which has neither",
            hint="Replace them, or use an endpoint with the binary tensor data extension",
        )


def _text_of(value: Any) -> bytes:
    try:
        return to_json(value, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeEncodeError):
        raise InputError(
            "a name, id or parameter can't be written as JSON", hint="Use text, numbers, true and false"
        ) from None


def _framed(head: bytes, parts: list[Buffer], binary: bool) -> Message:
    if not binary:
        return Message({"content-type": "application/json"}, (head,))
    # blanks after a JSON document are legal; they put the first tensor at a multiple of 64
    head += b" " * (-len(head) % _ALIGNMENT)
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Message(headers, (head, *[part for part in parts if len(part)]))


def encode_metadata(metadata: ModelMetadata) -> bytes:
    """The body of a model's metadata."""
    document: dict[str, Any] = {
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": [_spec_entry(spec) for spec in metadata.inputs],
        "outputs": [_spec_entry(spec) for spec in metadata.outputs],
    }
    if metadata.parameters:
        document["parameters"] = dict(metadata.parameters)
    return to_json(document, inf_nan_mode="null")


def _spec_entry(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def encode_server(metadata: ServerMetadata) -> bytes:
    """The body of the server's metadata."""
    return to_json({"name": metadata.name, "version": metadata.version, "extensions": metadata.extensions})


# ---------------------------------------------------------------- decoding
def decode_response(
    headers: Mapping[str, str],
    body: Buffer,
    *,
    outputs: Sequence[str] | None = None,
    id: str | None = None,
    layouts: Layouts | None = None,
) -> InferResponse:
    """An infer response. Tensors are views of `body` where they lie aligned.

    Args:
        headers, body: the reply's.
        outputs: the names that were asked for, exactly which must have come; None for any.
        id: the id that was sent; an answer with another one is refused.
        layouts: of this model's earlier answers; what is the same isn't read again.

    Raises:
        ProtocolError: it can't be understood, or answers something else.
    """
    head, rest = _parted(headers, body)
    layout = None if layouts is None or id is None or rest is None else layouts.find(head, id, len(rest))
    if layout is not None and rest is not None:
        response = InferResponse(
            model_name=layout.model_name,
            model_version=layout.model_version,
            id=id,
            outputs=layout.tensors(rest),
            parameters=layout.parameters,
        )
    else:
        document = object_of(parsed(head), "the answer")
        response = _response(document, rest, id)
        if layouts is not None and id is not None and rest is not None:
            layouts.keep(head, id, _layout(document, response))
    _check_asked(response.outputs, outputs)
    return response


def _response(document: dict[str, Any], rest: memoryview | None, id: str | None) -> InferResponse:
    answer_id = text_in(document, "id", "the answer")
    if id is not None and answer_id not in (None, "", id):
        raise ProtocolError("the answer has the id of another request: answers were mixed up")
    found = _read_tensors(document, "outputs", rest)
    if not found:
        raise ProtocolError("the answer has no outputs")
    return InferResponse(
        model_name=text_in(document, "model_name", "the answer") or "",
        model_version=text_in(document, "model_version", "the answer") or None,
        id=answer_id or None,
        outputs=found,
        parameters=parameters_in(document, "the answer"),
    )


def _layout(document: dict[str, Any], response: InferResponse) -> Layout | None:
    """Of an answer that was understood; None where a tensor stands in the JSON."""
    pieces, end = [], 0
    for entry, (name, tensor) in zip(document["outputs"], response.outputs.items(), strict=True):
        size = parameters_in(entry, name).get("binary_data_size")
        if size is None:
            return None
        pieces.append(Piece(name, tensor.datatype, tensor.shape, end, end := end + size))
    return Layout(response.model_name, response.model_version, response.parameters, tuple(pieces), end)


def _check_asked(found: Mapping[str, Tensor], outputs: Sequence[str] | None) -> None:
    if outputs is None or set(outputs) == set(found):
        return
    missing = [name for name in outputs if name not in found]
    if missing:
        raise ProtocolError(f"the answer lacks the output {quoted(missing[0])} that was asked for")
    extra = next(name for name in found if name not in outputs)
    raise ProtocolError(f"the answer has the output {quoted(extra)}, which wasn't asked for")


def decode_request(headers: Mapping[str, str], body: Buffer, *, specs: Sequence[TensorSpec] = ()) -> InferRequest:
    """An infer request, as a server reads it. Tensors are views of `body` where they lie aligned.

    Args:
        headers, body: the request's.
        specs: the model's inputs; needed for a raw binary request, whose body is the one input's bytes.

    Raises:
        InputError: it can't be understood (status 400).
    """
    try:
        if headers.get(HEADER_LENGTH, "").strip() == "0":
            return _raw_request(body, specs)
        return _json_request(headers, body)
    except ProtocolError as error:
        raise InputError(error.message, hint=error.hint) from None


def _json_request(headers: Mapping[str, str], body: Buffer) -> InferRequest:
    head, rest = _parted(headers, body)
    kept = None if rest is None or len(head) > heads.LONGEST else heads.split(bytes(head))
    if kept is not None and rest is not None:
        layout = heads.layouts.get(kept[0])
        if layout is not None and len(rest) == layout.size:
            return layout.filled(rest, *kept[1:])
    document = object_of(parsed(head), "the request")
    check_plain(head, document)
    inputs = _read_tensors(document, "inputs", rest)
    parameters = parameters_in(document, "the request")
    outputs = _requested(document)
    default = flag_in(parameters, "binary_data_output", "the request")
    request = InferRequest(
        id=text_in(document, "id", "the request"),
        inputs=inputs,
        outputs=outputs,
        binary_default=default,
        speaks_binary=HEADER_LENGTH in headers or any(output.binary for output in outputs or ()),
        parameters={name: value for name, value in parameters.items() if name != "binary_data_output"},
    )
    if kept is not None and rest is not None and (request.id, request.parameters.get("timeout")) == kept[1:]:
        heads.remember(kept[0], request, len(rest))
    return request


def _raw_request(body: Buffer, specs: Sequence[TensorSpec]) -> InferRequest:
    """The extension's raw binary request: header length 0, the body is the single input's elements.

    At most one axis may be free; for BYTES the whole body is the one element. Outputs come back as bytes.
    """
    if len(specs) != 1:
        raise ProtocolError("a raw binary request needs a model with one input")
    spec = specs[0]
    where = f"input {quoted(spec.name)}"
    size = DATATYPES[spec.datatype].size
    fixed = [axis for axis in spec.shape if axis != -1]
    width = int(np.prod(fixed, dtype=object)) if fixed else 1
    if size is None:
        if width != 1:
            raise ProtocolError(f"{where} holds more than the one element of a raw binary request")
        elements = np.empty(1, object)
        elements[0] = bytes(body)
        tensor = Tensor("BYTES", elements.reshape([1] * len(spec.shape)))
    else:
        if len(spec.shape) - len(fixed) > 1:
            raise ProtocolError(f"{where} has several free axes; a raw binary request can't tell its shape")
        rows = len(body) // (width * size) if width else 0
        shape = [rows if axis == -1 else axis for axis in spec.shape]
        tensor = tensors.from_bytes(spec.datatype, shape, body, where)
    return InferRequest(inputs={spec.name: tensor}, binary_default=True, speaks_binary=True)


def _requested(document: dict[str, Any]) -> list[RequestedOutput] | None:
    entries = document.get("outputs")
    if entries is None:
        return None
    found: dict[str, RequestedOutput] = {}
    for entry in list_of(entries, "outputs"):
        name = name_in(object_of(entry, "an entry of outputs"), "outputs", found)
        where = f"output {quoted(name)}"
        parameters = parameters_in(entry, where)
        if "shared_memory_region" in parameters:
            raise ProtocolError(f"{where} should lie in shared memory, which isn't offered")
        classes = count_in(parameters, "classification", where)
        found[name] = RequestedOutput(name, flag_in(parameters, "binary_data", where), classes)
    # Triton takes an empty list for "all", and its clients send one
    return list(found.values()) or None


def _read_tensors(document: dict[str, Any], member: str, rest: memoryview | None) -> dict[str, Tensor]:
    entries = document.get(member)
    if entries is None:
        raise ProtocolError(f"there is no {member!r}")
    found: dict[str, Tensor] = {}
    used = 0
    for entry in list_of(entries, member):
        name = name_in(object_of(entry, f"an entry of {member}"), member, found)
        where = f"{member[:-1]} {quoted(name)}"
        found[name], size = _tensor(entry, where, rest, used)
        used += size
    if rest is not None and used != len(rest):
        raise ProtocolError(f"{len(rest) - used} bytes are left over after the last of the {member}")
    return found


def _tensor(entry: dict[str, Any], where: str, rest: memoryview | None, used: int) -> tuple[Tensor, int]:
    """One tensor, and how many bytes of the binary part it took."""
    datatype = entry.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES:
        shown = f" {quoted(datatype)}" if type(datatype) is str else ""
        raise ProtocolError(f"{where} has an unknown datatype{shown}")
    shape = list_of(entry.get("shape"), f"the shape of {where}")
    parameters = parameters_in(entry, where)
    if "shared_memory_region" in parameters:
        raise ProtocolError(f"{where} lies in shared memory, which isn't offered")
    size, data = parameters.get("binary_data_size"), entry.get("data")
    if size is None:
        return _json_tensor(datatype, shape, data, where), 0
    if data is not None:
        raise ProtocolError(f"{where} has both data and binary_data_size")
    if type(size) is not int or size < 0:
        raise ProtocolError(f"the binary_data_size of {where} is no size")
    if rest is None:
        raise ProtocolError(f"{where} is binary and the header {HEADER_LENGTH} is missing")
    if size > len(rest) - used:
        raise ProtocolError(f"{where} needs {size} bytes and {len(rest) - used} are there")
    return tensors.from_bytes(datatype, shape, rest[used : used + size], where), size


def _json_tensor(datatype: str, shape: list[Any], data: Any, where: str) -> Tensor:
    # kserve's client writes `"data": null` for a tensor of no elements that should have been binary
    if data is None and 0 in shape:
        data = []
    if data is None:
        raise ProtocolError(f"{where} has neither data nor binary_data_size")
    return tensors.from_json(datatype, shape, data, where)


def decode_metadata(body: Buffer) -> ModelMetadata:
    """A model's metadata. Datatypes that this package doesn't know are kept by name.

    Raises:
        ProtocolError: it can't be understood.
    """
    where = "the model's metadata"
    document = object_of(parsed(body), where)
    name = text_in(document, "name", where)
    if not name:
        raise ProtocolError(f"{where} has no name")
    return ModelMetadata(
        name=name,
        versions=texts_in(document, "versions", where),
        platform=text_in(document, "platform", where) or "",
        inputs=_specs(document, "inputs"),
        outputs=_specs(document, "outputs"),
        parameters=parameters_in(document, where),
    )


def _specs(document: dict[str, Any], member: str) -> tuple[TensorSpec, ...]:
    found: dict[str, TensorSpec] = {}
    for entry in list_of(document.get(member) or [], member):
        name = name_in(object_of(entry, f"an entry of {member}"), member, found)
        where = f"{member[:-1]} {quoted(name)}"
        datatype = text_in(entry, "datatype", where)
        if not datatype:
            raise ProtocolError(f"{where} has no datatype")
        shape = list_of(entry.get("shape"), f"the shape of {where}")
        if len(shape) > MAX_RANK or any(type(axis) is not int or not -1 <= axis < 2**63 for axis in shape):
            raise ProtocolError(f"the shape of {where} isn't a list of sizes")
        found[name] = TensorSpec(name, datatype, tuple(shape))
    return tuple(found.values())


def decode_server(body: Buffer) -> ServerMetadata:
    """The server's metadata.

    Raises:
        ProtocolError: it can't be understood.
    """
    where = "the server's metadata"
    document = object_of(parsed(body), where)
    return ServerMetadata(
        name=text_in(document, "name", where) or "",
        version=text_in(document, "version", where) or "",
        extensions=texts_in(document, "extensions", where),
    )


# ---------------------------------------------------------------- parts of a document
def _parted(headers: Mapping[str, str], body: Buffer) -> tuple[Buffer, memoryview | None]:
    """The JSON and the binary part of a body; no binary part where the header is absent."""
    text = headers.get(HEADER_LENGTH)
    if text is None:
        return body, None
    length = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if not 0 <= length <= len(body):
        raise ProtocolError(f"the header {HEADER_LENGTH} isn't a length within the body")
    view = memoryview(body)
    return view[:length], view[length:]
