"""The Open Inference Protocol, version 2, over REST, with the binary tensor data extension.

Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md`; Triton's
`docs/protocol/extension_binary_data.md`. Both sides are here: a client encodes requests and decodes
responses, a server the other way round. Header names are lower case.

Decoding is strict about what a tensor is (type, shape, size, range) and tolerant of what servers add:
`null` for an absent member, unknown members, data nested or flat, bare NaN and Infinity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from pydantic_core import PydanticSerializationError, from_json, to_json

from aiaas_sdk import tensors
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, MAX_RANK, Tensor
from aiaas_sdk.wire.status import clean, excerpt

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
MAX_DEPTH = 100  # of a request's JSON; Triton's limit (src/common.h)
_ALIGNMENT = 64  # bytes; a cache line, and what AVX-512 likes
_HALVES = ("FP16", "BF16")  # no portable JSON form: Triton refuses both, KServe doesn't know BF16


@dataclass(frozen=True, slots=True)
class Message:
    """Headers, and a body in parts that follow one another; tensors' parts are views of their memory."""

    headers: dict[str, str]
    body: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output asked for by name; `binary` is its own wish, None where it has none."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """A decoded request. `outputs` None means all; `speaks_binary`: it used the binary extension itself."""

    id: str | None = None
    inputs: dict[str, Tensor]
    outputs: list[RequestedOutput] | None = None
    binary_default: bool | None = None
    speaks_binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def wants_binary(self, name: str, datatype: str) -> bool:
        """Whether an output travels as bytes: its own flag, else the request's, else as the request came.

        FP16 and BF16, which have no portable JSON form, go as bytes to whoever speaks binary.
        """
        own = next((output.binary for output in self.outputs or () if output.name == name), None)
        wish = self.binary_default if own is None else own
        return datatype in _HALVES and self.speaks_binary if wish is None else wish


@dataclass(frozen=True, slots=True, kw_only=True)
class InferResponse:
    """A response: who answered, the request's id, the outputs by name in the order of the wire."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: dict[str, Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What a server says of a model."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetadata:
    """What a server says of itself; `extensions` has "binary_tensor_data" where tensors may be bytes."""

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()


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
        entries.append(_entry(name, tensor, binary, parts))
    if outputs is not None:
        wish = {"parameters": {"binary_data": True}} if binary else {}
        document["outputs"] = [{"name": name, **wish} for name in outputs]
    return _message(document, parts, binary)


def encode_response(response: InferResponse, request: InferRequest) -> Message:
    """The response to a request, each output in the form that the request asked for (`wants_binary`).

    The request's id goes back unless the response has one. NaN and infinities in JSON become null, as KServe
    and MLServer write them.

    Raises:
        InputError: a BYTES output isn't UTF-8 and was asked for as JSON.
    """
    answer_id = response.id if response.id is not None else request.id
    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        document["model_version"] = response.model_version
    if answer_id is not None:
        document["id"] = answer_id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    parts: list[Buffer] = []
    document["outputs"] = [
        _entry(name, tensor, request.wants_binary(name, tensor.datatype), parts)
        for name, tensor in response.outputs.items()
    ]
    binary = any("data" not in entry for entry in document["outputs"])
    return _message(document, parts, binary)


def _entry(name: str, tensor: Tensor, binary: bool, parts: list[Buffer]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if binary:
        part = tensors.to_bytes(tensor)
        parts.append(part)
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


def _message(document: dict[str, Any], parts: list[Buffer], binary: bool) -> Message:
    try:
        head = to_json(document, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeEncodeError):
        raise InputError(
            "a name, id or parameter can't be written as JSON", hint="Use text, numbers, true and false"
        ) from None
    if not binary:
        return Message({"content-type": "application/json"}, (head,))
    # blanks after a JSON document are legal; they put the first tensor at a multiple of 64
    head += b" " * (-len(head) % _ALIGNMENT)
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Message(headers, (head, *(part for part in parts if len(part))))


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
) -> InferResponse:
    """An infer response. Tensors are views of `body` where they lie aligned.

    Args:
        headers, body: the reply's.
        outputs: the names that were asked for, exactly which must have come; None for any.
        id: the id that was sent; an answer with another one is refused.

    Raises:
        ProtocolError: it can't be understood, or answers something else.
    """
    head, rest = _parted(headers, body)
    document = _object(_parsed(head), "the answer")
    answer_id = _text(document, "id", "the answer")
    if id is not None and answer_id not in (None, "", id):
        raise ProtocolError("the answer has the id of another request: answers were mixed up")
    found = _read_tensors(document, "outputs", rest)
    if not found:
        raise ProtocolError("the answer has no outputs")
    _check_asked(found, outputs)
    return InferResponse(
        model_name=_text(document, "model_name", "the answer") or "",
        model_version=_text(document, "model_version", "the answer") or None,
        id=answer_id or None,
        outputs=found,
        parameters=_parameters(document, "the answer"),
    )


def _check_asked(found: Mapping[str, Tensor], outputs: Sequence[str] | None) -> None:
    if outputs is None or set(outputs) == set(found):
        return
    missing = [name for name in outputs if name not in found]
    if missing:
        raise ProtocolError(f"the answer lacks the output {_quoted(missing[0])} that was asked for")
    extra = next(name for name in found if name not in outputs)
    raise ProtocolError(f"the answer has the output {_quoted(extra)}, which wasn't asked for")


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
    document = _object(_parsed(head), "the request")
    _check_plain(head, document)
    inputs = _read_tensors(document, "inputs", rest)
    parameters = _parameters(document, "the request")
    outputs = _requested(document)
    default = _flag(parameters, "binary_data_output", "the request")
    return InferRequest(
        id=_text(document, "id", "the request"),
        inputs=inputs,
        outputs=outputs,
        binary_default=default,
        speaks_binary=HEADER_LENGTH in headers or any(output.binary for output in outputs or ()),
        parameters={name: value for name, value in parameters.items() if name != "binary_data_output"},
    )


def _raw_request(body: Buffer, specs: Sequence[TensorSpec]) -> InferRequest:
    """The extension's raw binary request: header length 0, the body is the single input's elements.

    At most one axis may be free; for BYTES the whole body is the one element. Outputs come back as bytes.
    """
    if len(specs) != 1:
        raise ProtocolError("a raw binary request needs a model with one input")
    spec = specs[0]
    where = f"input {_quoted(spec.name)}"
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
    for entry in _list(entries, "outputs"):
        name = _name(_object(entry, "an entry of outputs"), "outputs", found)
        where = f"output {_quoted(name)}"
        found[name] = RequestedOutput(name, _flag(_parameters(entry, where), "binary_data", where))
    # Triton takes an empty list for "all", and its clients send one
    return list(found.values()) or None


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise ProtocolError(f"the parameter {name} of {where} is neither true nor false")
    return value


def _read_tensors(document: dict[str, Any], member: str, rest: memoryview | None) -> dict[str, Tensor]:
    entries = document.get(member)
    if entries is None:
        raise ProtocolError(f"there is no {member!r}")
    found: dict[str, Tensor] = {}
    used = 0
    for entry in _list(entries, member):
        name = _name(_object(entry, f"an entry of {member}"), member, found)
        where = f"{member[:-1]} {_quoted(name)}"
        found[name], size = _tensor(entry, where, rest, used)
        used += size
    if rest is not None and used != len(rest):
        raise ProtocolError(f"{len(rest) - used} bytes are left over after the last of the {member}")
    return found


def _tensor(entry: dict[str, Any], where: str, rest: memoryview | None, used: int) -> tuple[Tensor, int]:
    """One tensor, and how many bytes of the binary part it took."""
    datatype = entry.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES:
        shown = f" {_quoted(datatype)}" if type(datatype) is str else ""
        raise ProtocolError(f"{where} has an unknown datatype{shown}")
    shape = _list(entry.get("shape"), f"the shape of {where}")
    parameters = _parameters(entry, where)
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
    document = _object(_parsed(body), where)
    name = _text(document, "name", where)
    if not name:
        raise ProtocolError(f"{where} has no name")
    return ModelMetadata(
        name=name,
        versions=_texts(document, "versions", where),
        platform=_text(document, "platform", where) or "",
        inputs=_specs(document, "inputs"),
        outputs=_specs(document, "outputs"),
        parameters=_parameters(document, where),
    )


def _specs(document: dict[str, Any], member: str) -> tuple[TensorSpec, ...]:
    found: dict[str, TensorSpec] = {}
    for entry in _list(document.get(member) or [], member):
        name = _name(_object(entry, f"an entry of {member}"), member, found)
        where = f"{member[:-1]} {_quoted(name)}"
        datatype = _text(entry, "datatype", where)
        if not datatype:
            raise ProtocolError(f"{where} has no datatype")
        shape = _list(entry.get("shape"), f"the shape of {where}")
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
    document = _object(_parsed(body), where)
    return ServerMetadata(
        name=_text(document, "name", where) or "",
        version=_text(document, "version", where) or "",
        extensions=_texts(document, "extensions", where),
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


def _parsed(head: Buffer) -> Any:
    try:
        # uncached: no two ids are alike, and the cache would keep 16,384 of them
        return from_json(bytes(head) if isinstance(head, memoryview) else head, cache_strings="none")
    except (ValueError, RecursionError) as error:
        _refuse_json(head, error)


def _refuse_json(head: Buffer, error: Exception) -> NoReturn:
    if not len(head):
        raise ProtocolError("the body is empty; JSON was expected") from None
    start = bytes(head[:64]).lstrip()[:1]
    # the text of a captive portal says where one is; a cut tensor says nothing that may be shown
    shown = "" if start in (b"{", b"[") else f": {excerpt(head)}"
    place = "" if shown else f" ({clean(str(error), 120)})"
    raise ProtocolError(f"the body isn't JSON{place}{shown}") from None


def _check_plain(head: Buffer, document: dict[str, Any]) -> None:
    """Refuse a request with a key twice (RFC 8259 4 leaves its meaning open), or nested too deep."""
    text = bytes(head)
    keys = sum(1 for colon in _STRING.findall(text) if colon)
    depth, distinct = 0, 0
    level: list[Any] = [document]
    while level:
        depth += 1
        distinct += sum(len(node) for node in level if type(node) is dict)
        level = [child for node in level for child in _children(node)]
        if depth > MAX_DEPTH:
            raise ProtocolError(f"the request's JSON is nested more than {MAX_DEPTH} deep")
    if keys != distinct:
        raise ProtocolError("the request's JSON has a key twice")


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*:)?', re.DOTALL)
"""A JSON string, and the colon after it where it is a key."""


def _children(node: Any) -> Iterator[Any]:
    if type(node) is dict:
        node = node.values()
    elif not set(map(type, node)) & _CONTAINERS:  # long lists of numbers are passed over at C speed
        return
    yield from (child for child in node if type(child) in _CONTAINERS)


_CONTAINERS = {dict, list}


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise ProtocolError(f"{where} isn't a JSON object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise ProtocolError(f"{where} isn't a JSON array")
    return value


def _text(document: dict[str, Any], member: str, where: str) -> str | None:
    value = document.get(member)
    if value is not None and type(value) is not str:
        raise ProtocolError(f"the {member} of {where} isn't text")
    return value


def _texts(document: dict[str, Any], member: str, where: str) -> tuple[str, ...]:
    values = _list(document.get(member) or [], f"the {member} of {where}")
    if any(type(value) is not str for value in values):
        raise ProtocolError(f"the {member} of {where} aren't text")
    return tuple(values)


def _parameters(document: dict[str, Any], where: str) -> dict[str, Any]:
    value = document.get("parameters")
    return {} if value is None else _object(value, f"the parameters of {where}")


def _name(entry: dict[str, Any], member: str, found: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if type(name) is not str or not name:
        raise ProtocolError(f"an entry of {member} has no name")
    if name in found:
        raise ProtocolError(f"the name {_quoted(name)} stands twice in {member}")
    return name


def _quoted(name: str) -> str:
    return f"'{name}'" if name.isascii() and name.isidentifier() and len(name) <= 80 else f"'{clean(name, 80)}'"
