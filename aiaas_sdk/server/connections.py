"""uvicorn's connections with patience that ends: slow or endless heads and stalled bodies are cut off.

Middleware can't do this, because it runs after the head has come. httptools sets no limit to a head, so its
bytes are counted in front of it; h11 has one (64 KiB).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from aiaas_sdk.server.errors import RefusedError, error_body

__all__ = ["protocol_class"]

HEAD_SECONDS = 8.0
"""For a request's head, from the connection or from its first byte."""
BODY_SECONDS, BODY_BYTES = 25.0, 25 * 1024
"""A body must bring this many bytes in each such span: a kilobyte a second."""
HEAD_BYTES = 64 * 1024
TARGET_BYTES = 16 * 1024
_LOOK = 1.0  # seconds between two looks at a connection
_SLICE = 8 * 1024


def protocol_class() -> type[asyncio.Protocol]:
    """The class for connections: on httptools where it is installed, else on h11."""
    return _OnHttptools or _OnH11


class _Patience(asyncio.Protocol):
    """The clock of one connection. Every other attribute is uvicorn's own."""

    if TYPE_CHECKING:
        loop: asyncio.AbstractEventLoop
        transport: asyncio.Transport
        flow: Any
        cycle: Any

    _phase = "head"  # "head", "body" or "": nothing is expected of the client
    _since = 0.0
    _arrived = 0
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._enter("head")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _enter(self, phase: str) -> None:
        self._phase, self._since, self._arrived = phase, self.loop.time(), 0

    def _watch(self) -> None:
        self._look = self.loop.call_later(_LOOK, self._watch)
        waited = self.loop.time() - self._since
        if self._phase == "head" and waited > HEAD_SECONDS:
            self.transport.abort()
        elif self._phase == "body" and waited > BODY_SECONDS:
            # where it is us who don't read, the client isn't slow
            if self._arrived < BODY_BYTES and not self.flow.read_paused:
                self.transport.abort()
            self._enter("body")

    def _unwatch(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer and close; where another answer is on its way, a second one would be taken for part of it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        path = (getattr(self, "url", None) or b"").decode("latin-1").partition("?")[0]
        told = error_body(RefusedError(status.value, message), path)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(told)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + told)
        self.transport.close()


class _OnH11(_Patience, H11Protocol):
    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        super().data_received(data)
        phase = self._expected()
        if phase != self._phase:
            self._enter(phase)

    def _expected(self) -> str:
        import h11

        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return "body"
        return "head" if state is h11.IDLE and self.conn.trailing_data[0] else ""

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this isn't a request of HTTP/1.1")


_OnHttptools: type[asyncio.Protocol] | None
try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    _OnHttptools = None
else:

    class _Httptools(_Patience, HttpToolsProtocol):
        _head = 0

        def data_received(self, data: bytes) -> None:
            self._arrived += len(data)
            if self._phase == "body" or len(data) <= _SLICE:
                self._feed(data)
                return
            view = memoryview(data)
            while view and not self.transport.is_closing():
                # in slices while a head comes, so that the part of a body that came along isn't counted as head
                size = len(view) if self._phase == "body" else _SLICE
                self._feed(bytes(view[:size]))
                view = view[size:]

        def _feed(self, data: bytes) -> None:
            if self._phase != "body":
                self._head += len(data)
            super().data_received(data)
            if self._phase == "body" or self.transport.is_closing():
                return
            if self._phase == "head" and len(self.url or b"") > TARGET_BYTES:
                self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"the target is longer than {TARGET_BYTES} bytes")
            elif self._phase == "head" and self._head > HEAD_BYTES:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._refuse(status, f"the head is larger than {HEAD_BYTES} bytes")

        def on_message_begin(self) -> None:
            self._enter("head")
            self._head = 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._enter("body")
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._phase = ""
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST, "this isn't a request of HTTP/1.1")

    _OnHttptools = _Httptools
