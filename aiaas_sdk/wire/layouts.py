"""The JSON of infer responses, read once.

A model's answers differ in their ids and in the bytes of their tensors; the JSON around them is mostly that of an
answer before. Reading it again would give the same, and for a small answer that is most of the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiaas_sdk import tensors
from aiaas_sdk.flow import Buffer
from aiaas_sdk.tensors import Tensor

__all__ = ["Layout", "Layouts", "Piece"]

MOST = 16
"""Layouts that are remembered: a model's answers have few shapes, or there is no use in it."""
_LOOKED_AT = ("BOOL", "BYTES")  # not any bytes are a tensor of these
LONGEST = 4096
"""Bytes of JSON that are remembered."""


class Piece(NamedTuple):
    """Where a tensor's bytes lie behind the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Layout(NamedTuple):
    """What the JSON says, but for the id. All tensors are binary, and `size` bytes hold them."""

    model_name: str
    model_version: str | None
    parameters: Mapping[str, Any]
    pieces: tuple[Piece, ...]
    size: int

    def tensors(self, rest: memoryview) -> dict[str, Tensor]:
        """The tensors over an answer's bytes behind its JSON."""
        return {
            name: tensors.viewed(datatype, shape, rest, start)
            if datatype not in _LOOKED_AT
            else tensors.from_bytes(datatype, shape, rest[start:end], f"output {name!r}")
            for name, datatype, shape, start, end in self.pieces
        }


class Layouts:
    """The layouts of one endpoint's answers, by their JSON without the id. Safe across threads."""

    def __init__(self) -> None:
        self._known: dict[bytes, Layout] = {}

    def find(self, head: Buffer, id: str, size: int) -> Layout | None:
        """That of an answer to the request `id`, with so many bytes behind its JSON."""
        found = self._known.get(_without(head, id))
        return found if found is not None and found.size == size else None

    def keep(self, head: Buffer, id: str, layout: Layout | None) -> None:
        """Remember what the JSON of an answer says, which has been read and is right; None isn't remembered."""
        text = _without(head, id)
        if layout is not None and _GAP in text and len(text) <= LONGEST:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[text] = layout


_GAP = b'"id":\0'  # no JSON text holds a NUL, so it can't be taken for the peer's words


def _without(head: Buffer, id: str) -> bytes:
    return bytes(head).replace(b'"id":"%b"' % id.encode(), _GAP, 1)
