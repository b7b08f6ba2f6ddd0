"""uvicorn's connections with patience that ends: slow or endless heads and stalled bodies are cut off, and where there
are too many connections, the longest idle one.

Middleware can't do this, because it runs after the head has come. To a head's bytes h11 has a limit (64 KiB), and
`connections_httptools` sets one.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from aiaas_sdk.server.errors import PAUSE, RefusedError, error_body
from aiaas_sdk.server.gathering import Gathering

__all__ = ["Patience", "most_connections", "protocol_class"]

HEAD_SECONDS = 8.0
"""For a request's head, from the connection or from its first byte."""
BODY_SECONDS, BODY_BYTES = 25.0, 25 * 1024
"""A body must bring this many bytes in each such span: a kilobyte a second."""
_LOOK = 1.0  # seconds between two looks at a connection
_KEPT_FILES = 64  # descriptors that aren't connections': models, logs, connections to other servers


def protocol_class() -> type[asyncio.Protocol]:
    """The class for connections: on httptools where it is installed, else on h11."""
    try:
        from aiaas_sdk.server.connections_httptools import OnHttptools
    except ImportError:
        return _OnH11
    return OnHttptools


class Patience(asyncio.Protocol):
    """The clock of one connection. Every other attribute is uvicorn's own."""

    if TYPE_CHECKING:
        loop: asyncio.AbstractEventLoop
        transport: asyncio.Transport
        flow: Any
        cycle: Any
        config: Any
        timeout_keep_alive: int
        connections: set[Any]

    _phase = "head"  # "head", "body" or "": nothing is expected of the client
    _since = 0.0
    _arrived = 0
    _silent = True
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathering(transport, self.loop))
        self._enter("head")
        self._watch()
        self._make_room()

    # ------------------------------------------------------------ too many
    @property
    def idle(self) -> bool:
        """Whether neither side has anything under way."""
        if self.transport.is_closing():
            return False
        return self._silent or (self._phase == "" and (self.cycle is None or self.cycle.response_complete))

    def _make_room(self) -> None:
        """Close the longest idle connection, if there are too many with this one, or else this one."""
        most = most_connections(self.config.app.serving.max_connections)
        if len(self.connections) <= most:
            return
        if len([other for other in self.connections if not other.transport.is_closing()]) <= most:
            return
        idle = [other for other in self.connections if other.idle and other is not self]
        if idle:
            min(idle, key=lambda other: other._since).transport.close()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _enter(self, phase: str) -> None:
        self._phase, self._since, self._arrived = phase, self.loop.time(), 0

    def _watch(self) -> None:
        self._look = self.loop.call_later(_LOOK, self._watch)
        waited = self.loop.time() - self._since
        if self._phase == "head" and self.flow.read_paused:
            self._enter("head")  # it is us who don't read
        elif self._phase == "head" and waited > HEAD_SECONDS:
            self.transport.abort()
        elif self.idle and waited > self.timeout_keep_alive:
            self.transport.close()  # uvicorn's own timer, on h11, ends where a body comes behind its answer
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
        wait = f"retry-after: {PAUSE:.0f}\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(told)}\r\n{wait}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + told)
        self.transport.close()


def most_connections(wanted: int) -> int:
    """Connections that may be held: as many as are wanted, and never all of the process's files.

    Without files nobody could be let in any more, nor told so.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(files - _KEPT_FILES, files // 2))


class _OnH11(Patience, H11Protocol):
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        self._silent = False
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
