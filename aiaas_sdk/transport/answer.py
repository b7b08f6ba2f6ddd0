"""One reply on its way in, without any I/O.

A parser calls `head`, `piece` and `end`; a connection asks whether the rest can be received straight into
`room`. Limits are checked here, so that they hold whoever parses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from aiaas_sdk.errors import ConnectionLostError, ProtocolError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport.placing import aligned, copied

__all__ = ["MAX_BODY", "Answer", "Head"]

MAX_BODY = 1 << 30
"""Bytes of a whole reply's body at most."""
MAX_HEAD = 100 * 1024
"""Bytes of a reply's head, or between two pieces of its body, at most; httpcore allows as many."""
MAX_FIELDS = 1000
"""Header lines of a reply at most."""
SHORT = 64
"""Bytes of a name that is remembered."""
MAX_ERROR = 1 << 16
"""Bytes of the body that are read where the status is an error."""

_NO_BODY = (204, 304)


class Head(NamedTuple):
    """Of a reply: its status and headers, and whether the peer keeps the connection."""

    status: int
    version: str
    headers: dict[str, str]
    kept: bool


class Answer:
    """What has come of a reply.

    `headed`: status and headers are there. `done`: nothing more is needed. `reusable`: the connection may carry
    another request. `begun`: at least one byte came. `room`: where the rest of the body goes, None where a parser
    has to see it. `pieces`: what came of a reply that isn't kept whole.
    """

    __slots__ = (
        "_align", "_body", "_headed_only", "_joined", "_limit", "_method", "_overhead", "_sized",
        "begun", "done", "headed", "headers", "pieces", "reusable", "room", "status", "whole",
    )  # fmt: skip

    def __init__(self, request: Request, whole: bool) -> None:
        self._method, self._align, self.whole = request.method, request.align, whole
        self.status, self.headers = 0, dict[str, str]()
        self.begun = self.headed = self.done = False
        self.reusable = True
        self.room: memoryview | None = None
        self.pieces: list[bytes] = []
        self._body = memoryview(b"")
        self._joined = bytearray()
        self._sized = self._headed_only = False
        self._overhead = 0
        self._limit = MAX_BODY

    # ------------------------------------------------------------ from a connection
    def arrived(self, count: int) -> None:
        """`count` bytes go to the parser next."""
        self.begun = True
        self._overhead += count

    def check(self) -> None:
        """After the parser saw them: a head, or what stands between pieces of the body, must not go on for ever."""
        if self._overhead > MAX_HEAD and not self.done:
            raise ProtocolError(f"the answer's head is larger than {MAX_HEAD} bytes")

    def filled(self, count: int) -> None:
        """`count` bytes were received into `room`."""
        room = self.room
        assert room is not None
        self.room = room[count:]
        if not self.room:
            self.end()

    def eof(self) -> None:
        """The peer ended the connection: a normal end only where nothing else says how long the body is."""
        self.reusable = False
        if self.headed and not self._sized and "transfer-encoding" not in self.headers:
            self.end()
            return
        if not self.begun:
            raise ConnectionLostError("the connection ended before an answer came")
        raise ConnectionLostError("the connection ended before the whole answer had come")

    def extra(self) -> None:
        """Bytes came that belong to no answer; the next request must not take them for its own."""
        self.reusable = False

    # ------------------------------------------------------------ from a parser
    def head(self, status: int, version: str, fields: Sequence[tuple[bytes, bytes]]) -> Head:
        """The final status and headers; those of interim replies (1xx) don't come here.

        Gives what `again` takes for a reply with the same head.
        """
        if version not in ("1.1", "1.0", "2"):
            raise ProtocolError("the answer isn't HTTP/1.1")
        self._check_size(fields)
        headers = _joined(fields)
        _check_coding(headers)
        head = Head(status, version, headers, _kept(version, headers.get("connection", "")))
        self.again(head)
        return head

    def again(self, head: Head) -> None:
        """As `head`, where an answer before this one had the same."""
        self.status, self.headers, self._overhead = head.status, head.headers, 0
        self.reusable = self.reusable and head.kept
        self._frame(head.headers.get("content-length"), head.version)
        self.headed = True
        if self._headed_only:
            self.end()

    def repeated(self, head: Head, body: bytes) -> None:
        """All of a reply whose head was that of one before, and says that so much follows."""
        if not self.whole or head.status >= 400 or self._method == "HEAD":
            self.again(head)
            if body:
                self.piece(body)
        else:
            self.status, self.headers, self.headed = head.status, head.headers, True
            self._body = copied(body, self._before())
        self.end()

    def _check_size(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Exactly, since the last bytes that came may have been many, and part of the body."""
        size = sum(len(name) + len(value) + 4 for name, value in fields) if self._overhead > MAX_HEAD else 0
        if size > MAX_HEAD or len(fields) > MAX_FIELDS:
            raise ProtocolError(f"the answer's head is larger than {MAX_HEAD} bytes or {MAX_FIELDS} lines")

    def _frame(self, announced: str | None, version: str) -> None:
        """How long the body is (RFC 9112 6.3); with HTTP/2 its end shows in any case."""
        if self._method == "HEAD" or self.status in _NO_BODY:
            self._headed_only = True
            self.reusable = self.reusable and self._method != "HEAD"  # a parser doesn't know what was asked
        elif announced is not None:
            self._announce(announced)
        elif "transfer-encoding" not in self.headers and version != "2":
            self.reusable = False
        if self.status >= 400 and self.whole:
            self._limit = min(self._limit, MAX_ERROR)

    def _announce(self, text: str) -> None:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ProtocolError(f"the answer announces a length that is none ({_shown(text)})")
        size = int(text)
        self._sized = True
        if not self.whole:
            return
        if size > self._limit and self.status < 400:
            raise ProtocolError(f"the answer announces {size} bytes; at most {self._limit} are taken")
        if size > MAX_ERROR and self.status >= 400:
            size, self.reusable = MAX_ERROR, False
        self._place(size)

    def _place(self, size: int) -> None:
        if not size:
            return
        try:
            self._body = aligned(size, self._before())
        except MemoryError:
            raise ProtocolError(f"the answer announces {size} bytes, for which there is no memory") from None
        self.room = self._body

    def _before(self) -> int:
        text = self.headers.get(self._align or "", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0

    def piece(self, data: bytes) -> None:
        """A part of the body that the parser saw."""
        self._overhead = 0
        if self.done:
            return
        if not self.whole:
            self.pieces.append(data)
        elif self.room is not None:
            size = min(len(data), len(self.room))
            self.room[:size] = data[:size]
            self.filled(size)
        else:
            self._join(data)

    def _join(self, data: bytes) -> None:
        self._joined += data
        if len(self._joined) <= self._limit:
            return
        if self.status < 400:
            raise ProtocolError(f"the answer is larger than {self._limit} bytes")
        del self._joined[self._limit :]
        self.reusable = False
        self.end()

    def end(self) -> None:
        """The body is whole."""
        self.done, self.room = True, None

    # ------------------------------------------------------------ for the caller
    def reply(self) -> Reply:
        return Reply(self.status, self.headers, self._placed() if self._joined else self._body)

    def _placed(self) -> memoryview:
        """A body whose length nobody knew is moved once, if something in it has to be aligned."""
        if not self._align:
            return memoryview(self._joined)
        body = aligned(len(self._joined), self._before())
        body[:] = self._joined
        return body

    def taken(self) -> bytes:
        """What came since the last time, of a reply that isn't kept whole."""
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        return data


def _check_coding(headers: Mapping[str, str]) -> None:
    """Only the identity was asked for; unpacking anything else could fill the memory."""
    coding = headers.get("content-encoding", "identity").lower()
    if coding not in ("identity", ""):
        raise ProtocolError(f"the answer is compressed ({_shown(coding)}), unasked")
    coding = headers.get("transfer-encoding", "chunked").lower()
    if coding != "chunked":
        raise ProtocolError(f"the answer has an unknown transfer encoding ({_shown(coding)})")


def _joined(fields: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; values of one name stand behind one another (RFC 9110 5.3)."""
    headers: dict[str, str] = {}
    for name, value in fields:
        key, text = (_known if len(name) <= SHORT else _name)(name), value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()


_known = lru_cache(256)(_name)
"""A peer's replies have the same names again and again."""


def _kept(version: str, connection: str) -> bool:
    options = connection.lower()
    return "keep-alive" in options if version == "1.0" else "close" not in options


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text[:20])
