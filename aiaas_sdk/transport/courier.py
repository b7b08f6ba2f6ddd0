"""Requests and their replies over kept connections, as steps: what both senders perform."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import NoReturn, Protocol

from aiaas_sdk.errors import AiaasError, ClosedError, ConnectError, ConnectionLostError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.records.network import PLAIN
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.connecting import connect
from aiaas_sdk.transport.failures import crowded, late, lost, unreachable
from aiaas_sdk.transport.idle import Idle
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import Origin, origin_of
from aiaas_sdk.transport.places import Place, Places
from aiaas_sdk.transport.proxies import Proxy, proxy_for
from aiaas_sdk.transport.steps import Steps

__all__ = ["Courier", "failed", "reading"]


class Link(Protocol):
    """One way to an origin: a connection of our own, or a transport of httpx's."""

    sent: int
    origin: Origin

    def start(self, message: Message, answer: Answer, until: float | None) -> Steps[None]: ...
    def finish(self, answer: Answer, until: float | None) -> Steps[None]: ...
    def more(self, answer: Answer, until: float | None) -> Steps[None]: ...
    def leave(self) -> Steps[None]: ...
    def usable(self) -> bool: ...
    def close(self) -> None: ...


class Exchange:
    """One request on its way: whom it goes to and how, the place and the link that it has, and its answer."""

    __slots__ = ("answer", "key", "link", "message", "network", "origin", "place", "released")

    answer: Answer

    def __init__(self, request: Request) -> None:
        self.link: Link | None = None
        self.place: Place | None = None
        self.origin, self.network = origin_of(request.url), request.network or PLAIN
        self.key: Hashable = self.origin if request.network is None else (self.origin, request.network)
        self.message = Message(request)
        self.released = False

    def leave(self) -> None:
        """Let somebody else have its place."""
        place, self.place = self.place, None
        if place is not None:
            place.leave()

    def __del__(self) -> None:
        """An opened reply that nobody released; a place comes back by itself."""
        if self.link is not None:
            self.link.close()


class Courier:
    """Sends requests, keeps connections. Safe across threads and event loops; a child process starts anew."""

    def __init__(self) -> None:
        self._idle = Idle()
        self._proxies: dict[Hashable, Proxy | None] = {}
        self._process, self._places = os.getpid(), dict[Hashable, Places]()

    # ------------------------------------------------------------ the four things a flow asks for
    def send(self, request: Request, until: float | None) -> Steps[Reply]:
        """The whole reply."""
        exchange = yield from self._answered(request, until, whole=True)
        self._put_back(exchange)
        return exchange.answer.reply()

    def open(self, request: Request, until: float | None) -> Steps[Reply]:
        """The reply's head; the rest is to be read."""
        exchange = yield from self._answered(request, until, whole=False)
        answer = exchange.answer
        if answer.done:
            self._put_back(exchange)
        return Reply(answer.status, answer.headers, handle=exchange)

    def read(self, reply: Reply, until: float | None) -> Steps[bytes]:
        """What comes next of an opened reply, at least one byte; empty at its end."""
        exchange = reading(reply)
        if exchange.link is not None and not exchange.answer.pieces:
            try:
                yield from exchange.link.more(exchange.answer, until)
            except BaseException as error:
                failed(exchange, error)
        return self.received(exchange)

    def received(self, exchange: Exchange) -> bytes:
        """The piece that has come; the connection goes back at the answer's end."""
        if exchange.answer.done and exchange.link is not None:
            self._put_back(exchange)
        return exchange.answer.taken()

    def release(self, reply: Reply) -> Steps[None]:
        """Give the connection back; it is closed where the reply wasn't read to its end."""
        exchange: Exchange = reply.handle
        exchange.released = True
        link, exchange.link = exchange.link, None
        try:
            if link is not None:
                yield from link.leave()
        finally:
            exchange.leave()

    def close(self) -> None:
        """Close the connections that are kept. What is under way ends well; nothing is kept from now on."""
        self._idle.close()

    # ------------------------------------------------------------ one request
    def _answered(self, request: Request, until: float | None, whole: bool) -> Steps[Exchange]:
        exchange = Exchange(request)
        try:
            if exchange.network.connections is not None:
                yield from self._placed(exchange, exchange.network.connections, until)
            yield from self._carried(exchange, request, until, whole)
        except BaseException:
            exchange.leave()
            raise
        return exchange

    def _placed(self, exchange: Exchange, most: int, until: float | None) -> Steps[None]:
        """Wait for a place, where their number is limited."""
        if self._process != os.getpid():  # nobody would give back what the parent's calls have
            self._process, self._places = os.getpid(), {}
        places = self._places.get(exchange.key)
        if places is None:
            places = self._places.setdefault(exchange.key, Places(most))
        try:
            exchange.place = yield from places.enter(until)
        except TimeoutError:
            raise crowded(exchange.origin, most) from None

    def _carried(self, exchange: Exchange, request: Request, until: float | None, whole: bool) -> Steps[None]:
        """Sent over a kept connection if there is one. That one's end before any answer is no failure yet: peers
        close what has been idle (RFC 9112 9.3.1), and the request goes out once more, over a new connection."""
        kept: Link | None = self._idle.take(exchange.key)  # type: ignore[assignment]  # it gives what was kept
        if kept is not None:
            exchange.link, exchange.answer = kept, Answer(request, whole)
            try:
                yield from _exchanged(exchange, kept, until)
                return
            except (ConnectionLostError, ConnectError):
                if exchange.answer.begun or not (request.idempotent or kept.sent == 0):
                    raise
        link = yield from self._connected(exchange, until)
        exchange.link, exchange.answer = link, Answer(request, whole)
        yield from _exchanged(exchange, link, until)

    def _connected(self, exchange: Exchange, until: float | None) -> Steps[Link]:
        origin, network, key = exchange.origin, exchange.network, exchange.key
        if network.transport is not None:
            from aiaas_sdk.transport.handed import Handed

            return Handed(network.transport, origin)
        if key not in self._proxies:
            self._proxies[key] = proxy_for(origin, network)
        if (proxy := self._proxies[key]) is None and not (network.http2 and origin.secure):
            return (yield from connect(origin, network, until))
        from aiaas_sdk.transport.borrowed import Borrowed

        return Borrowed(proxy, origin, network)

    def _put_back(self, exchange: Exchange) -> None:
        """The answer's end has come. The connection is kept before its place is given: whoever gets that finds it."""
        link, exchange.link = exchange.link, None
        assert link is not None
        try:
            if exchange.answer.reusable:
                self._idle.keep(exchange.key, link)
            else:
                link.close()
        finally:
            exchange.leave()


def reading(reply: Reply) -> Exchange:
    """The exchange of an opened reply."""
    exchange: Exchange = reply.handle
    if exchange.released:
        raise ClosedError("the reply was closed before it was read to its end")
    return exchange


def failed(exchange: Exchange, error: BaseException) -> NoReturn:
    """For what is being handled, and was raised by reading: it goes up as the package's own."""
    link, exchange.link = exchange.link, None
    assert link is not None
    try:
        _fail(link, error)
    finally:
        exchange.leave()


def _exchanged(exchange: Exchange, link: Link, until: float | None) -> Steps[None]:
    """Sent, and received as far as it is wanted. Failures come out as the package's own, and close the connection."""
    answer = exchange.answer
    try:
        yield from link.start(exchange.message, answer, until)
        if answer.whole and not answer.done:
            yield from link.finish(answer, until)
    except BaseException as error:
        _fail(link, error)


def _fail(link: Link, error: BaseException) -> NoReturn:
    """For what is being handled."""
    link.close()
    if isinstance(error, AiaasError):
        raise error
    if isinstance(error, TimeoutError):
        raise late(link.origin, connecting=False) from None
    if isinstance(error, OSError):
        raise (lost if link.sent else unreachable)(link.origin, error) from None
    raise error
