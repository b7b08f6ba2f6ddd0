"""Connections on httptools: bodies are read to where they lie, answers are ours, and what a full queue refuses again is
answered before it is parsed. The rest is uvicorn's.

httptools sets no limit to a head, so its bytes are counted in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aiaas_sdk.server.connections import Patience
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.incoming import Incoming, Inlet, Waste, space_of
from aiaas_sdk.server.outgoing import Outgoing, beginning
from aiaas_sdk.server.overflow import RAW, Overflow, Refused

__all__ = ["OnHttptools"]

HEAD_BYTES = 64 * 1024
TARGET_BYTES = 16 * 1024
_SLICE = 8 * 1024
_WHOLE = 64 * 1024  # bytes of a request that is read at once where some are refused: most are whole by that


class _Flow(FlowControl):
    """uvicorn's, which reads on only where no request waits behind the one under way: each answer, and each look
    whether the client has left, would bring more requests than it ends, and all of them would be kept."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class OnHttptools(Patience, HttpToolsProtocol):
    """Connections whose requests httptools parses."""

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
