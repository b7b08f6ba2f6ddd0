"""A form with one file (multipart/form-data, RFC 7578), read straight to disk; it is never held in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from aiaas_sdk.server.bodies import LeftError
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.training.folder import storing
from aiaas_sdk.server.visits import current

__all__ = ["Form", "read_form"]

MAX_FIELD = 8 * 1024  # bytes
MAX_FIELDS = 16
_WRITTEN = 1024**2  # bytes that are gathered before they are written
_AROUND = 64 * 1024  # bytes that a form has besides its file


@dataclass
class Form:
    """What a form held.

    Attributes:
        fields: by name.
        filename: as the client calls it; nothing is done by it.
        size: of the file, None where there was none; sha256: of its bytes, in hexadecimal.
    """

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    size: int | None = None
    sha256: str = ""


async def read_form(headers: Mapping[str, str], receive: Any, *, file: str, into: Path, limit: int) -> Form:
    """Read a form.

    Args:
        headers: the request's, names in lower case.
        file: the field that is the file.
        into: the path that its bytes are written to.
        limit: bytes that it may have.

    Raises:
        RefusedError: 400 it is no such form, 413 it is too large, 415 it is packed, 507 the disk is full.
        LeftError: the client has gone.
    """
    reader = _Reader(_boundary(headers, limit), file, into, limit)
    with storing(), into.open("xb") as stream:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise LeftError
            piece = message.get("body", b"")
            if (visit := current()) is not None:
                visit.received += len(piece)
            reader.feed(bytes(piece))  # a parser of bytes
            more = message.get("more_body", False)
            if len(reader.pending) >= _WRITTEN or not more:
                await asyncio.to_thread(reader.flush, stream)
        form = reader.result()
        await asyncio.to_thread(_settle, stream)
    return form


def _settle(stream: Any) -> None:
    """What is answered has to be there after a power cut, too."""
    stream.flush()
    os.fsync(stream.fileno())


def _boundary(headers: Mapping[str, str], limit: int) -> bytes:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusedError(415, "an uploaded file isn't taken packed (Content-Encoding)", unread=True)
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit + _AROUND:
        raise _too_large(limit)
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not 0 < len(parameters.get(b"boundary", b"")) <= 256:
        raise RefusedError(400, "the body is no multipart/form-data with a file", unread=True)
    return parameters[b"boundary"]


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, f"the file is larger than the {limit} bytes that are taken here", unread=True)


class _Reader:
    """What the parser tells, as a `Form`."""

    def __init__(self, boundary: bytes, file: str, into: Path, limit: int) -> None:
        self._file, self._limit = file, limit
        self._form, self._state = Form(), hashlib.sha256()
        self._size = self._parts = 0
        self.pending = bytearray()
        self._ended = False
        self._begin()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError:
            raise RefusedError(400, "the form can't be read", unread=True) from None

    def flush(self, stream: Any) -> None:
        self._state.update(self.pending)
        stream.write(self.pending)
        self.pending.clear()

    def result(self) -> Form:
        if not self._ended:
            raise RefusedError(400, "the form ends before its last boundary")
        if self._form.size is None:
            raise RefusedError(400, f"the form has no file {self._file!r}", param=self._file)
        self._form.sha256 = self._state.hexdigest()
        return self._form

    # ------------------------------------------------------------ what the parser calls
    def _begin(self) -> None:
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field = ""
        self._text = bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise RefusedError(400, "the form has too many fields", unread=True)
        if self._field == self._file:
            if self._form.size is not None:
                raise RefusedError(400, f"the form has the file {self._file!r} twice", unread=True)
            self._form.size = 0
            self._form.filename = options.get(b"filename", b"").decode("utf-8", "replace")[:200]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == self._file:
            assert self._form.size is not None
            self._form.size += end - start
            if self._form.size > self._limit:
                raise _too_large(self._limit)
            self.pending += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD:
            raise RefusedError(400, "a field of the form is too long", unread=True)

    def _part_end(self) -> None:
        if self._field != self._file:
            self._form.fields[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
