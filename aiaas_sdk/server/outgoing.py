"""Answers as they leave.

A whole answer leaves in one write, and its head is made once for all that are alike: uvicorn looks at each line of each
head anew. Whatever else there is, streams among it, is uvicorn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

__all__ = ["Outgoing", "beginning"]

_MOST = 128
"""Heads that are remembered."""
_JOINED = 64 * 1024
"""Bytes of a body that is copied behind its head; a larger one is written by itself."""
_CONNECTION = (b"connection", b"transfer-encoding")
Lines = Sequence[tuple[bytes, bytes]]


class Outgoing(RequestResponseCycle):
    """uvicorn's record of a request, on a connection that goes on."""

    _held: bytes | None = None
    """The head of a whole answer, which waits for the body."""

    async def send(self, message: Any) -> None:
        """ASGI's."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self._held is not None:
            if not self.disconnected:
                await self._whole(self._held, message)
        elif self.response_started or self.disconnected or not self._hold(message):
            await super().send(message)

    def _hold(self, message: Any) -> bool:
        """Keep the head, if what follows is known from it."""
        if message["type"] != "http.response.start" or self.scope["method"] == "HEAD":
            return False
        if not self.keep_alive or self.access_log:
            return False
        status, lines = message["status"], message["headers"]
        key = (status, *lines)
        known = _heads.get(key)
        if known is None:
            if (known := _understood(lines)) is None:
                return False
            if len(_heads) >= _MOST:
                _heads.clear()
            _heads[key] = known
        rest, self.expected_content_length = known
        self.response_started, self.chunked_encoding, self.waiting_for_100_continue = True, False, False
        self._held = beginning(status, self.default_headers) + rest
        return True

    async def _whole(self, head: bytes, message: Any) -> None:
        body = message.get("body", b"")
        if message.get("more_body", False) or len(body) != self.expected_content_length or len(body) > _JOINED:
            self._held = None
            self.transport.write(head)
            await super().send(message)
            return
        self._held = None
        self.transport.write(b"".join((head, body)))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def beginning(status: int, lines: Lines) -> bytes:
    """The first line of an answer, and those that all have for a second."""
    global _dated
    before, text = _dated
    if before is not lines:
        text = _text(lines)
        _dated = lines, text
    return STATUS_LINE[status] + text


def _understood(lines: Lines) -> tuple[bytes, int] | None:
    """The text, up to the body, and the body's length; None for what uvicorn should look at."""
    names = [name.lower() for name, _ in lines]
    if names.count(b"content-length") != 1 or not set(_CONNECTION).isdisjoint(names):
        return None
    if any(HEADER_RE.search(name) for name, _ in lines) or any(HEADER_VALUE_RE.search(value) for _, value in lines):
        return None
    return _text(lines) + b"\r\n", int(lines[names.index(b"content-length")][1])


def _text(lines: Lines) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name.lower(), value) for name, value in lines)


_heads: dict[tuple[Any, ...], tuple[bytes, int]] = {}
"""By status and lines. Safe across threads."""
_dated: tuple[Lines, bytes] = ((), b"")
"""The lines of the last answer that all have, and their text."""
