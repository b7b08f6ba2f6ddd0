"""A message as its parts: tensors travel beside it and are never copied into a protobuf message.

A field of bytes is a tag, a length and the bytes, and the fields of a message may stand in any order
(protobuf.dev `programming-guides/encoding`). So what protobuf writes, followed by the tensors with tag and length, is
the whole message; and the other way round the tensors are cut out before protobuf reads the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.flow import Buffer

__all__ = ["joined", "split"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def joined(head: bytes, field: int, contents: Iterable[Buffer]) -> tuple[Buffer, ...]:
    """A message in parts: its other fields as protobuf wrote them, then each content as the repeated `field`."""
    tag = bytes([field << 3 | _LENGTH])
    parts: list[Buffer] = [head]
    for content in contents:
        parts += (tag + _varint(len(content)), content)
    return tuple(parts)


def split(body: Buffer, field: int) -> tuple[bytes, list[memoryview]]:
    """The message without its repeated `field`, and the contents of that as views of `body`.

    Raises:
        ProtocolError: it isn't a protobuf message.
    """
    view, wanted = memoryview(body), field << 3 | _LENGTH
    others: list[memoryview] = []
    contents: list[memoryview] = []
    at = 0
    while at < len(view):
        begin, tag = at, view[at]
        if tag < 0x80 and at + 1 < len(view) and tag & 7 == _LENGTH and view[at + 1] < 0x80:  # most are
            at, end = at + 2, at + 2 + view[at + 1]
        else:
            tag, at = _read_varint(view, at)
            size, at = _size(view, at, tag & 7)
            end = at + size
        if end > len(view):
            raise ProtocolError("the message ends within a field")
        if tag == wanted:
            contents.append(view[at:end])
        else:
            others.append(view[begin:end])
        at = end
    return b"".join(others), contents


def _size(view: memoryview, at: int, kind: int) -> tuple[int, int]:
    """The bytes that a field's value takes, and where it begins."""
    if kind == _LENGTH:
        return _read_varint(view, at)
    if kind == _VARINT:
        return _read_varint(view, at)[1] - at, at
    if kind in (_FIXED64, _FIXED32):
        return (8 if kind == _FIXED64 else 4), at
    raise ProtocolError("the message isn't one of protobuf's")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        if at >= len(view):
            raise ProtocolError("the message ends within a number")
        byte = view[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise ProtocolError("the message holds a number of more than 64 bits")
