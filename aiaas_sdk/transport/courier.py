"""Requests and their replies over kept connections, as steps: what both senders perform."""

from __future__ import annotations

from typing import Protocol

from aiaas_sdk.errors import AiaasError, ClosedError, ConnectError, ConnectionLostError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.connecting import connect
from aiaas_sdk.transport.failures import late, lost, unreachable
from aiaas_sdk.transport.idle import Idle
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import Origin, origin_of
from aiaas_sdk.transport.proxies import Proxy, proxy_for
from aiaas_sdk.transport.steps import Steps

__all__ = ["Courier"]


class Link(Protocol):
    """One way to an origin: a connection of our own, or one of httpx's through a proxy."""

    sent: int
    origin: Origin

    def start(self, message: Message, answer: Answer, until: float | None) -> Steps[None]: ...
    def finish(self, answer: Answer, until: float | None) -> Steps[None]: ...
    def more(self, answer: Answer, until: float | None) -> Steps[None]: ...
    def usable(self) -> bool: ...
    def close(self) -> None: ...


class Opened:
    """An opened reply's way to the rest of it; `link` is None when nothing is left to come or to close."""

    __slots__ = ("answer", "link", "released")

    def __init__(self, answer: Answer, link: Link | None) -> None:
        self.answer, self.link, self.released = answer, link, False


class Courier:
    """Sends requests, keeps connections. Safe across threads and event loops; a child process starts anew."""

    def __init__(self) -> None:
        self._idle = Idle()
        self._proxies: dict[Origin, Proxy | None] = {}

    # ------------------------------------------------------------ the four things a flow asks for
    def send(self, request: Request, until: float | None) -> Steps[Reply]:
        """The whole reply."""
        answer, link = yield from self._answered(request, until, whole=True)
        self._put_back(link, answer)
        return answer.reply()

    def open(self, request: Request, until: float | None) -> Steps[Reply]:
        """The reply's head; the rest is to be read."""
        answer, link = yield from self._answered(request, until, whole=False)
        opened = Opened(answer, link)
        self._settle(opened)
        return Reply(answer.status, answer.headers, handle=opened)

    def read(self, reply: Reply, until: float | None) -> Steps[bytes]:
        """What comes next of an opened reply, at least one byte; empty at its end."""
        opened: Opened = reply.handle
        if opened.released:
            raise ClosedError("the reply was closed before it was read to its end")
        link, answer = opened.link, opened.answer
        if link is not None and not answer.pieces:
            try:
                yield from _mapped(link, link.more(answer, until))
            except BaseException:
                opened.link = None
                raise
            self._settle(opened)
        return answer.taken()

    def release(self, reply: Reply) -> None:
        """Give the connection back; it is closed where the reply wasn't read to its end."""
        opened: Opened = reply.handle
        opened.released = True
        link, opened.link = opened.link, None
        if link is not None:
            link.close()

    def close(self) -> None:
        """Close the connections that are kept. What is under way ends well; nothing is kept from now on."""
        self._idle.close()

    # ------------------------------------------------------------ one request
    def _answered(self, request: Request, until: float | None, whole: bool) -> Steps[tuple[Answer, Link]]:
        """Sent over a kept connection if there is one. That one's end before any answer is no failure yet: peers
        close what has been idle (RFC 9112 9.3.1), and the request goes out once more, over a new connection."""
        origin = origin_of(request.url)
        message = Message(request)
        kept: Link | None = self._idle.take(origin)  # type: ignore[assignment]  # it gives what was kept
        if kept is not None:
            answer = Answer(request, whole)
            try:
                yield from _exchanged(kept, message, answer, until)
                return answer, kept
            except (ConnectionLostError, ConnectError):
                if answer.begun or not (request.idempotent or kept.sent == 0):
                    raise
        link = yield from self._connected(origin, until)
        answer = Answer(request, whole)
        yield from _exchanged(link, message, answer, until)
        return answer, link

    def _connected(self, origin: Origin, until: float | None) -> Steps[Link]:
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(origin)
        if (proxy := self._proxies[origin]) is None:
            return (yield from connect(origin, until))
        from aiaas_sdk.transport.proxied import Proxied

        return Proxied(proxy, origin)

    def _settle(self, opened: Opened) -> None:
        """An opened reply whose end has come needs its connection no more."""
        if opened.answer.done and opened.link is not None:
            link, opened.link = opened.link, None
            self._put_back(link, opened.answer)

    def _put_back(self, link: Link, answer: Answer) -> None:
        if answer.reusable:
            self._idle.keep(link.origin, link)
        else:
            link.close()


def _exchanged(link: Link, message: Message, answer: Answer, until: float | None) -> Steps[None]:
    yield from _mapped(link, link.start(message, answer, until))
    if answer.whole and not answer.done:
        yield from _mapped(link, link.finish(answer, until))


def _mapped(link: Link, steps: Steps[None]) -> Steps[None]:
    """The steps, whose failures come out as the package's own. Whatever fails, the connection is closed."""
    try:
        yield from steps
    except AiaasError:
        link.close()
        raise
    except TimeoutError:
        link.close()
        raise late(link.origin, connecting=False) from None
    except OSError as error:
        link.close()
        raise (lost if link.sent else unreachable)(link.origin, error) from None
    except BaseException:
        link.close()
        raise
