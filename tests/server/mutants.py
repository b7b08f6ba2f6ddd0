"""Requests of the Open Inference Protocol that were right once: one change or several, by a seeded generator."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = ["Request", "golden", "mutated", "scrambled"]

HEADER = "Inference-Header-Content-Length"
SIZES = (0, 1, -1, 2, 3, 7, 11, 13, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES", "STRING", "fp32", "FP8", "", "object", "O", "V12", "M8[s]"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e400, float("nan"), 10**400, "", "x", "\x00", "\ud800", "é" * 300),
    *([], [[]], {}, [None], {"x": {}}, [[1], [2, 3]], "../../etc/passwd", "x" * 5000),
)
KEYS = (
    *("inputs", "outputs", "parameters", "id", "name", "shape", "datatype", "data", "binary_data", "binary_data_size"),
    *("binary_data_output", "shared_memory_region", "classification", "timeout", "priority", "sequence_id", "triton_x"),
)


@dataclass(frozen=True)
class Request:
    """POST /v2/models/`model`/infer: the document, the tensors behind it, and headers beside the usual ones."""

    model: str
    document: Any
    tensors: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    text: bytes | None = None
    """Instead of the document's JSON."""
    length: str | None = None
    """Instead of the right value of the header with the length of the JSON; "" for none."""

    @property
    def head(self) -> bytes:
        return json.dumps(self.document).encode() if self.text is None else self.text

    @property
    def body(self) -> bytes:
        return self.head + self.tensors

    @property
    def all_headers(self) -> dict[str, str]:
        length = self.length
        if length is None and self.tensors:
            length = str(len(self.head))
        return {**self.headers, **({HEADER: length} if length else {})}


# ---------------------------------------------------------------- right ones
def golden() -> list[Request]:
    """One of each kind: numbers and strings, in bytes and in JSON, both at once, raw, several inputs."""
    x, s = np.arange(6, dtype=np.float32), struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0)
    packed = {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
    words = {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(s)}}
    told = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": x.tolist()}
    spoken = {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["ab", ""]}
    every = {"parameters": {"binary_data_output": True}}
    chosen = {"outputs": [{"name": "x", "parameters": {"binary_data": True}}]}
    numbers = [
        Request("any", {"inputs": [{**packed, "shape": [24 // size], "datatype": kind}], **every}, x.tobytes())
        for kind, size in (("BOOL", 1), ("INT8", 1), ("UINT16", 2), ("FP16", 2), ("BF16", 2), ("INT64", 8))
    ]
    return [
        Request("one", {"inputs": [packed], **chosen}, x.tobytes()),
        Request("one", {"id": "7", "inputs": [told]}),
        Request("pair", {"inputs": [packed, words], **every}, x.tobytes() + s),
        Request("pair", {"inputs": [told, words]}, s),
        Request("pair", {"inputs": [packed, spoken], **chosen}, x.tobytes()),
        Request("one", None, x.tobytes(), text=b"", length="0"),
        *(request for request in numbers if request.document["inputs"][0]["datatype"] != "BOOL"),
    ]


# ---------------------------------------------------------------- changed ones
def mutated(seed: int, count: int) -> Iterator[Request]:
    """`count` of them, the same ones for a seed."""
    chance, whole = random.Random(seed), golden()
    for _ in range(count):
        request = chance.choice(whole)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            request = chance.choice(CHANGES)(request, chance)
        yield request


def _length(request: Request, chance: random.Random) -> Request:
    """The header with the length of the JSON lies."""
    size = len(request.head)
    lies = (
        size - 1,
        size + 1,
        size + 5,
        len(request.body),
        len(request.body) + 1,
        *SIZES,
        "",
        "x",
        "1e2",
        "0x10",
        "+2",
    )
    return replace(request, length=str(chance.choice(lies)))


def _tensor(request: Request, chance: random.Random) -> Request:
    """A tensor's shape, datatype, size or name lies."""
    changes: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("shape", lambda: [chance.choice((*SIZES, 2, 3, 6)) for _ in range(chance.randrange(5))]),
        ("shape", lambda: [1] * chance.choice((8, 33, 65, 1000))),
        ("shape", lambda: chance.choice(VALUES)),
        ("datatype", lambda: chance.choice(DATATYPES)),
        ("name", lambda: chance.choice(("y", "s", "", "x\x00", "../x", "x" * 10_000))),
        ("parameters", lambda: {"binary_data_size": chance.choice((*SIZES, *VALUES))}),
        ("parameters", lambda: {"shared_memory_region": "r", "shared_memory_byte_size": chance.choice(SIZES)}),
        ("data", lambda: chance.choice((*VALUES, [1] * 1000, [[0.5]] * 6, ["a"] * 6))),
    )
    name, value = chance.choice(changes)
    return _changed(request, chance, lambda inputs: inputs.__setitem__(name, value()))


def _changed(request: Request, chance: random.Random, change: Callable[[dict[str, Any]], None]) -> Request:
    document = json.loads(json.dumps(request.document))
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not inputs or not isinstance(inputs[-1], dict):
        return request
    change(chance.choice([tensor for tensor in inputs if isinstance(tensor, dict)]))
    return replace(request, document=document)


def _twice(request: Request, chance: random.Random) -> Request:
    """The same input twice, or a member twice."""
    if (
        chance.random() < 0.5
        and isinstance(request.document, dict)
        and isinstance(request.document.get("inputs"), list)
    ):
        inputs = request.document["inputs"]
        return replace(request, document={**request.document, "inputs": inputs + inputs[:1]})
    return replace(request, text=request.head.replace(b'"inputs"', b'"inputs": [], "inputs"', 1))


def _member(request: Request, chance: random.Random) -> Request:
    """Any member anywhere becomes something else, goes, or comes."""
    document = json.loads(json.dumps(request.document))
    places = list(_places(document))
    if not places:
        return replace(request, document=chance.choice(VALUES), text=None)
    holder, key = chance.choice(places)
    way = chance.randrange(3)
    if way == 0:
        del holder[key]
    elif way == 1 or isinstance(holder, list):
        holder[key] = chance.choice((*VALUES, *SIZES))
    else:
        holder[chance.choice(KEYS)] = chance.choice((*VALUES, *SIZES))
    return replace(request, document=document)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])


def _bytes(request: Request, chance: random.Random) -> Request:
    """Bytes of the JSON flip, go or come."""
    return replace(request, text=_noise(request.head, chance))


def _tail(request: Request, chance: random.Random) -> Request:
    """The tensors are cut, longer, or of other bytes."""
    size = len(request.tensors)
    return replace(
        request, tensors=chance.choice((request.tensors[: chance.randrange(size + 1)], b"\xff" * (size + 9)))
    )


def _deep(request: Request, chance: random.Random) -> Request:
    depth = chance.choice((50, 130, 5_000, 100_000))
    return replace(request, text=b'{"inputs":' + b"[" * depth + b"]" * depth + b"}")


def _told(request: Request, chance: random.Random) -> Request:
    """A header says what isn't so."""
    name, value = chance.choice(
        (
            ("Content-Type", "text/plain"),
            ("Content-Type", "multipart/form-data; boundary=x"),
            ("Content-Encoding", "gzip"),
            ("Content-Encoding", "deflate"),
            ("Content-Encoding", "br"),
            ("Content-Encoding", "gzip, gzip"),
            ("Accept-Encoding", "gzip"),
            ("Accept-Encoding", "*;q=0"),
            ("Accept", "text/html"),
            ("Aiaas-Timeout-Ms", "-1"),
            ("X-Request-Id", "\xff" * 300),
            ("Traceparent", "00-" + "z" * 32 + "-1-01"),
        )
    )
    return replace(request, headers={**request.headers, name: value})


def _noise(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(found) + 1)
        way = chance.randrange(3)
        if way == 0 and place < len(found):
            found[place] = chance.randrange(256)
        elif way == 1:
            del found[place : place + chance.randrange(1, 9)]
        else:
            found[place:place] = chance.randbytes(chance.randrange(1, 9))
    return bytes(found)


CHANGES = (_length, _length, _tensor, _tensor, _tensor, _member, _member, _bytes, _bytes, _tail, _told, _twice, _deep)


def scrambled(seed: int, count: int) -> Iterator[bytes]:
    """Whole requests as they go over the wire, with changed bytes, mostly in the head."""
    chance, whole = random.Random(seed), golden()
    for _ in range(count):
        request = chance.choice(whole)
        lines = [f"POST /v2/models/{request.model}/infer HTTP/1.1", "Host: 127.0.0.1"]
        headers = {**request.all_headers, "Content-Length": str(len(request.body))}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if chance.random() < 0.8:
            yield _noise(head, chance) + request.body
        else:
            yield _noise(head + request.body, chance)


# ---------------------------------------------------------------- what a right answer is
def expected(request: Request) -> dict[str, tuple[str, list[int], bytes | list[Any]]]:
    """The tensors of a request as a reader of the plainest kind sees them: datatype, shape, and bytes or a flat list.

    Only for a request that was answered with 200.
    """
    if request.all_headers.get(HEADER) == "0":
        return {"x": ("FP32", [], request.body)}
    text, rest = request.head, request.tensors
    if (length := request.all_headers.get(HEADER)) is not None:
        text, rest = request.body[: int(length)], request.body[int(length) :]
    found = {}
    for tensor in json.loads(text)["inputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        data: bytes | list[Any]
        if size is None:
            data = list(_flat(tensor["data"]))
        else:
            data, rest = rest[:size], rest[size:]
        assert isinstance(data, bytes) or len(data) == math.prod(tensor["shape"])
        found[tensor["name"]] = (tensor["datatype"], tensor["shape"], data)
    assert not rest
    return found


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for part in data:
            yield from _flat(part)
    else:
        yield data
