"""Thrift's compact protocol, read: what describes a Parquet file and its pages.

A struct is a dict whose keys are a field's number *and* kind: a reader that expects another kind passes the field over,
and so must whoever checks what that reader is about to see. Source: apache/thrift
`doc/specs/thrift-compact-protocol.md`.
"""

from __future__ import annotations

from typing import Any

from aiaas_sdk.errors import InputError

__all__ = ["I32", "I64", "LIST", "STRUCT", "TEXT", "Compact", "Struct"]

I32, I64, TEXT, LIST, STRUCT = 5, 6, 8, 9, 12
"""Kinds of fields."""
Struct = dict[tuple[int, int], Any]
_TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _SET = 1, 2, 3, 4, 7, 10
_DEPTH = 8  # of structs in structs: the description of a file has 5
_ALL = 250_000  # values: some thousand columns, and a fraction of a second


class Compact:
    """A reader of bytes.

    Attributes:
        at: bytes that were read.
    """

    def __init__(self, view: memoryview) -> None:
        self._view, self.at, self._left = view, 0, _ALL

    def struct(self, depth: int = 0) -> Struct:
        """
        Raises:
            InputError: it is none, or a very large one.
        """
        found: Struct = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._zigzag()
            if kind in (_TRUE, _FALSE):
                found[number, kind] = kind == _TRUE
            else:
                found[number, kind] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            raise _wrong()
        if kind in (_I16, I32, I64):
            return self._zigzag()
        if kind == TEXT:
            return self._take(self._varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, _SET):
            return self._list(depth + 1)
        if kind == _DOUBLE:
            return self._take(8)
        if kind in (_TRUE, _FALSE, _BYTE):  # a list's truths are a byte each
            return self._byte()
        raise _wrong()

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        if size == 15:
            size = self._varint()
        if size > len(self._view) - self.at:
            raise _wrong()
        return [self._value(kind, depth) for _ in range(size)]

    def _byte(self) -> int:
        if self.at >= len(self._view):
            raise _wrong()
        self.at += 1
        return self._view[self.at - 1]

    def _take(self, size: int) -> bytes:
        start = self.at
        if size > len(self._view) - start:
            raise _wrong()
        self.at = start + size
        return bytes(self._view[start : self.at])

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise _wrong()

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _wrong() -> InputError:
    return InputError("the body isn't Parquet: what describes its columns or pages can't be read")
