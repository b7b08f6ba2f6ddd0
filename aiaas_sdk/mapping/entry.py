"""The answers to some consecutive rows as bytes.

::

    length      4 bytes, little-endian: of the JSON that follows
    JSON        {"first": row, "count": rows, "facts": {...}, "outputs": [[name, datatype, shape, bytes], ...]}
    digests     8 bytes a row: the beginning of the SHA-256 of its inputs
    outputs     the tensors, one after the other, as in the binary tensor data extension
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiaas_sdk.flow import Buffer
from aiaas_sdk.mapping.chunks import Chunk
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Kind, Tensor, from_bytes, to_bytes

__all__ = ["Entry", "digests", "packed"]

DIGEST = 8
LENGTH = struct.Struct("<I")
MOST_ROWS = 1 << 62
GUESS = 4096
"""Bytes that most often hold everything before the outputs."""


def packed(chunk: Chunk, answer: Prediction) -> Sequence[Buffer]:
    """The answer to a chunk, in parts."""
    outputs = {name: to_bytes(tensor) for name, tensor in answer.tensors.items()}
    head = {
        "first": chunk.rows.start,
        "count": len(chunk.rows),
        "facts": _facts(answer),
        "outputs": [[n, t.datatype, t.shape, len(outputs[n])] for n, t in answer.tensors.items()],
    }
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)), text, b"".join(digests(chunk)), *outputs.values()


def _facts(answer: Prediction) -> dict[str, Any]:
    """What is kept of the call."""
    return {
        "model": answer.model,
        "version": answer.version,
        "backend": answer.backend,
        "attempts": answer.attempts,
        "request_id": answer.request_id,
        "total": answer.timing.total,
        "queue": answer.timing.queue,
        "compute": answer.timing.compute,
        "network": answer.timing.network,
    }


def digests(chunk: Chunk) -> Sequence[bytes]:
    """One a row, of names, datatypes, shapes and elements of its inputs."""
    forms = [(name, tensor.datatype, tensor.shape[1:]) for name, tensor in chunk.inputs.items()]
    start = hashlib.sha256(json.dumps(forms).encode())
    views = [_views(tensor) for tensor in chunk.inputs.values()]
    return [_digest(start, row) for row in zip(*views, strict=True)]


def _digest(start: Any, parts: Sequence[Buffer]) -> bytes:
    state = start.copy()
    for part in parts:
        state.update(part)
    return bytes(state.digest()[:DIGEST])


def _views(tensor: Tensor) -> Sequence[Buffer]:
    """The bytes of each row."""
    count = tensor.shape[0]
    if tensor.datatype == "BYTES":
        return [to_bytes(Tensor("BYTES", tensor.array[row : row + 1])) for row in range(count)]
    view = memoryview(to_bytes(tensor))
    step = len(view) // count
    return [view[row * step : (row + 1) * step] for row in range(count)]


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands before the outputs.

    Attributes:
        rows: the rows that were answered.
        facts: what is known of the call.
        outputs: name, datatype, shape and bytes of each.
        digests: of the rows, joined.
        size: bytes before the outputs.
    """

    rows: range
    facts: Mapping[str, Any]
    outputs: Sequence[tuple[str, str, Sequence[int], int]]
    digests: bytes
    size: int

    @classmethod
    def parse(cls, read: Callable[[int], bytearray]) -> Entry:
        """From what `read` gives of the entry: as many of its first bytes as it is asked for.

        Raises:
            KeyError, TypeError, ValueError, struct.error: this is no entry.
        """
        data = read(GUESS)
        (length,) = LENGTH.unpack(data[: LENGTH.size])
        begin = LENGTH.size + length
        if begin > len(data):
            data = read(begin)
        head = json.loads(data[LENGTH.size : begin])
        first, count = head["first"], head["count"]
        if not 0 <= first <= first + count <= MOST_ROWS:
            raise ValueError("rows that can't be")
        size = begin + DIGEST * count
        if size > len(data):
            data = read(size)
        return cls(range(first, first + count), head["facts"], head["outputs"], bytes(data[begin:size]), size)

    def digest(self, row: int) -> bytes:
        """That of the row of this index."""
        begin = DIGEST * (row - self.rows.start)
        return self.digests[begin : begin + DIGEST]

    def prediction(self, data: Buffer, kind: Kind, labels: tuple[str, ...] | None) -> Prediction:
        """The answer as it came, in arrays of the caller's kind. `data`: the whole entry.

        Raises:
            ProtocolError, TypeError, ValueError: this is no entry.
        """
        view, begin = memoryview(data), self.size
        tensors: dict[str, Tensor] = {}
        for name, datatype, shape, size in self.outputs:
            tensors[name] = from_bytes(datatype, shape, view[begin : begin + size], f"output {name!r}")
            begin += size
        call = Call("predict", rows=len(self.rows), **self.facts)
        return Prediction(call, {name: kind.give(t) for name, t in tensors.items()}, tensors, labels)
