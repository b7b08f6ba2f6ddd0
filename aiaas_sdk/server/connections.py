"""uvicorn's connections with patience that ends: slow or endless heads and stalled bodies are cut off, and where there
are too many connections, the longest idle one.

Middleware can't do this, because it runs after the head has come. httptools sets no limit to a head, so its
bytes are counted in front of it; h11 has one (64 KiB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from uvicorn.protocols.http.h11_impl import H11Protocol

from aiaas_sdk.server.errors import PAUSE, RefusedError, error_body
from aiaas_sdk.server.gathering import Gathering
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.incoming import Incoming, Inlet, Waste, space_of
from aiaas_sdk.server.overflow import RAW, Overflow, Refused

__all__ = ["most_connections", "protocol_class"]

HEAD_SECONDS = 8.0
"""For a request's head, from the connection or from its first byte."""
BODY_SECONDS, BODY_BYTES = 25.0, 25 * 1024
"""A body must bring this many bytes in each such span: a kilobyte a second."""
HEAD_BYTES = 64 * 1024
TARGET_BYTES = 16 * 1024
_LOOK = 1.0  # seconds between two looks at a connection
_SLICE = 8 * 1024
_WHOLE = 64 * 1024  # bytes of a request that is read at once where some are refused: most are whole by that
_KEPT_FILES = 64  # descriptors that aren't connections': models, logs, connections to other servers


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


class _OnH11(_Patience, H11Protocol):
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


_OnHttptools: type[asyncio.Protocol] | None
try:
    from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from aiaas_sdk.server.outgoing import Outgoing, beginning
except ImportError:
    _OnHttptools = None
else:

    class _Flow(FlowControl):
        """uvicorn's, which reads on only where no request waits behind the one under way: each answer, and each look
        whether the client has left, would bring more requests than it ends, and all of them would be kept."""

        def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
            super().__init__(transport)
            self._waiting = waiting

        def resume_reading(self) -> None:
            if not self._waiting:
                super().resume_reading()

    class _Httptools(_Patience, HttpToolsProtocol):
        url = b""
        _head = 0
        _raw = b""
        """A head that is known whole before it is parsed."""
        _body: Incoming | Waste | None = None
        """What comes now, where its end is known."""
        _latest: Incoming | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.flow = _Flow(self.transport, self.pipeline)
            self._space = space_of(self.loop)
            self._overflow: Overflow = self.config.app.overflow
            self.app = self.config.app.request
            transport.set_protocol(Inlet(self))

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._latest is not None:
                self._latest.drop()

        def room(self) -> memoryview:
            """Where the next bytes are read to; a little while a head comes, so that the body behind it comes apart."""
            if self._body is not None:
                return self._body.room()
            if self._phase == "body":
                return self._space.room
            return self._space.room[: _WHOLE if self._begins() else _SLICE]

        def came(self, size: int) -> None:
            """So many bytes lie there."""
            self._arrived += size
            begins = self._begins()
            self._silent = False
            if self._body is not None:
                self._body.came(size)
                self._end_body()
            elif begins:
                self._begin(self._space.room[:size])
            else:
                self._go_on(self._space.room[:size])

        def _begins(self) -> bool:
            """Whether what comes now is a request with none before it, in a time in which some are refused.

            Who doesn't take his answers waits, as with any other answer.
            """
            return self._overflow.watched and self.idle and not self.flow.write_paused

        def _begin(self, data: memoryview) -> None:
            """A request that is answered as it was lately, or read: its head apart, and then what follows."""
            head = self._overflow.head_of(data)
            refused = self._overflow.find(head)
            if refused is not None and len(data) <= len(head) + refused.length:
                self._give(refused, len(head) + refused.length - len(data))
                return
            self._raw = head
            size = self._feed(data[: len(head) or _SLICE])
            self._raw = b""  # nobody's, where it was no head but empty lines
            self._go_on(data[size:])

        def _go_on(self, data: memoryview) -> None:
            """What comes now, whatever it belongs to; a head in slices, so that one that is too large is seen."""
            while data and not self.transport.is_closing():
                if isinstance(self._body, Incoming):
                    size = min(self._body.left, len(data))
                    self._body.take(data[:size])
                    self._end_body()
                else:
                    size = self._feed(data if self._phase == "body" else data[:_SLICE])
                data = data[size:]

        def _give(self, refused: Refused, left: int) -> None:
            """Answer, and throw away what comes of the body."""
            self._overflow.count(refused)
            self.transport.write(beginning(503, self.server_state.default_headers) + refused.answer)
            self.server_state.total_requests += 1
            self._body = Waste(left, self._space)
            self._enter("body")
            self._end_body()

        def _end_body(self) -> None:
            body = self._body
            if body is None or body.left:
                return
            self._body = None
            if isinstance(body, Incoming):
                self.on_message_complete()
                self._parse_anew()
            else:
                self._phase, self._since = "", self.loop.time()

        def _parse_anew(self) -> None:
            """The parser hasn't seen the end of the body, and waits for it."""
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's

        def _feed(self, data: memoryview) -> int:
            """Parse it; how much of it was parsed."""
            before = self.cycle
            if self._phase != "body":
                self._head += len(data)
            size = self._parsed(data)
            if self.transport.is_closing():
                return size
            if self._phase == "body":
                if self.cycle is not before:
                    self._body = self._latest = self._rest_of_body()
            elif self._phase == "head" and len(self.url) > TARGET_BYTES:
                self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"the target is longer than {TARGET_BYTES} bytes")
            elif self._phase == "head" and self._head > HEAD_BYTES:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._refuse(status, f"the head is larger than {HEAD_BYTES} bytes")
            return size

        def _parsed(self, data: memoryview) -> int:
            """All of it, but where a request would like another protocol: for the parser that one begins behind its
            head. We speak none (RFC 9110 7.8), so what follows is its body, or the next request."""
            try:
                self.parser.feed_data(data)
            except HttpParserError:
                self.send_400_response("")
            except HttpParserUpgrade as wish:
                self._parse_anew()
                return int(wish.args[0])
            return len(data)

        def _rest_of_body(self) -> Incoming | None:
            head = head_in(self.scope)  # type: ignore[arg-type]
            return Incoming(self.cycle, head, self._space) if self._fits(head) else None

        def _fits(self, head: Head) -> bool:
            """Whether there is a body whose length is known, and no more than may be thrown away."""
            return head.lengths == 1 and not head.costly and 0 < (head.length or 0) <= self._space.free

        def on_message_begin(self) -> None:
            self._enter("head")
            self._head = 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """As uvicorn's, without web sockets, and with answers of ours."""
            self._enter("body")
            version = self.parser.get_http_version()
            before, self.cycle = self.cycle, self._cycle(version)
            if before is None or before.response_complete:
                self._start_asgi_task(self.cycle, self.app)
            else:
                self.flow.pause_reading()
                self.pipeline.appendleft((self.cycle, self.app))

        def _cycle(self, version: str) -> Outgoing:
            parsed, scope = parse_url(self.url), cast(dict[str, Any], self.scope)
            path = parsed.path.decode("ascii")
            scope["method"] = self.parser.get_method().decode("ascii")
            scope["http_version"] = version
            scope["path"] = unquote(path) if "%" in path else path
            scope["raw_path"], scope["query_string"] = parsed.path, parsed.query or b""
            if self._raw:
                scope[RAW] = self._raw
            return Outgoing(
                scope=self.scope,
                transport=self.transport,
                flow=self.flow,
                logger=self.logger,
                access_logger=self.access_logger,
                access_log=self.access_log,
                default_headers=self.server_state.default_headers,
                message_event=asyncio.Event(),
                expect_100_continue=self.expect_100_continue,
                keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self._loses_body(),
                on_response=self.on_response_complete,
            )

        def _loses_body(self) -> bool:
            """Whether nobody finds the end of the body, because the parser took it for another protocol."""
            head = head_in(self.scope)  # type: ignore[arg-type]
            return self.parser.should_upgrade() and head.lengths > 0 and not self._fits(head)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade() and self._fits(head_in(self.scope)):  # type: ignore[arg-type]
                return  # it hasn't begun
            self._phase = ""
            super().on_message_complete()

        def on_response_complete(self) -> None:
            """As uvicorn's, without its timer for each request: our own look closes idle connections."""
            self.server_state.total_requests += 1
            if self.transport.is_closing():
                return
            self._since = self.loop.time()
            if self._latest is not None and self.cycle.response_complete:
                self._latest.drop()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            self.flow.resume_reading()

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST, "this isn't a request of HTTP/1.1")

    _OnHttptools = _Httptools
