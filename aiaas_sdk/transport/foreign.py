"""Requests by a transport of httpx's, and what comes of them: replies and failures.

httpx and httpx2 have the same names and no class in common; a transport tells by its class which of them it is of.
Their timeouts are per read, so a peer that drips outlives them; therefore they work in a thread, which a call that
gives up leaves behind.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from ssl import SSLError
from types import ModuleType
from typing import Any

from aiaas_sdk.errors import (
    AiaasError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
)
from aiaas_sdk.flow import Buffer
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.connecting import CONNECT_LIMIT
from aiaas_sdk.transport.failures import late, lost, unreachable
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.steps import Steps, blocking, left

__all__ = ["Foreign", "arequest", "begin", "cause", "finish", "flavour", "names"]

FLAVOURS = ("httpx", "httpx2")
_CUT = ("disconnected", "closed connection", "without sending", "StreamReset", "ConnectionTerminated")
PIECE = 1 << 18
"""Bytes handed to httpx at once; a large `bytes` costs it time that grows with the square of the size."""


def names(value: object) -> frozenset[str]:
    """The names of httpx's own classes that it is an instance of."""
    return frozenset(cls.__name__ for cls in type(value).__mro__ if cls.__module__.partition(".")[0] in FLAVOURS)


def flavour(transport: object) -> ModuleType:
    """The package that the transport's classes come from, and the requests that it understands."""
    for cls in type(transport).__mro__:
        if (package := cls.__module__.partition(".")[0]) in FLAVOURS:
            return sys.modules[package]
    raise ConfigError("network.transport is no transport of httpx or httpx2")


class Foreign:
    """One way to an origin by a transport of httpx's.

    All work is done in a thread, one piece at a time. `close` may come while it is at work: the thread, which comes
    back with something that nobody waits for, clears away then.
    """

    def __init__(self, transport: Any, origin: Origin, through: str) -> None:
        self.origin, self.sent = origin, 0
        self._transport, self._httpx = transport, flavour(transport)
        self._through = through
        self._pieces: Iterator[bytes] = iter(())
        self._response: Any = None
        self._guard = threading.Lock()
        self._busy = self._gone = False

    # ------------------------------------------------------------ as steps
    def start(self, message: Message, answer: Answer, until: float | None) -> Steps[None]:
        """Send the request and receive the head of the answer."""
        self.sent = 0
        yield from self._away(partial(self._exchange, message, answer, until), until)

    def finish(self, answer: Answer, until: float | None) -> Steps[None]:
        """Receive the rest of the answer."""
        if not answer.done:
            yield from self._away(partial(self._pull, answer, lambda: answer.done), until)

    def more(self, answer: Answer, until: float | None) -> Steps[None]:
        """Receive another piece."""
        if not (answer.done or answer.pieces):
            yield from self._away(partial(self._pull, answer, lambda: bool(answer.pieces)), until)

    def leave(self) -> Steps[None]:
        """Close it, whose answer hasn't come to its end."""
        yield from ()
        self.close()

    def _away(self, work: Callable[[], None], until: float | None) -> Steps[None]:
        self._busy = True
        yield from blocking(partial(self._guarded, work), until)

    # ------------------------------------------------------------ in the thread
    def _guarded(self, work: Callable[[], None]) -> None:
        """The work; what the transport raises comes out as our own error, without its frames, which hold headers."""
        failure, why = None, None
        try:
            work()
        except AiaasError:
            raise
        except Exception as error:
            failure, why = self._mapped(error), cause(error)
        finally:
            with self._guard:
                self._busy = False
                if self._gone:
                    self._end()
        try:
            if failure is not None:
                raise failure from why
        finally:
            del failure, why  # they hold this frame

    def _exchange(self, message: Message, answer: Answer, until: float | None) -> None:
        # the request isn't kept here, where an error's traceback would show its headers
        response = self._transport.handle_request(_request(self._httpx, message, _pieces, until, self._extensions()))
        self._response, self._pieces = response, iter(response.stream)
        begin(answer, response)
        if answer.done:
            self._over(answer)

    def _pull(self, answer: Answer, enough: Callable[[], bool]) -> None:
        for data in self._pieces:
            answer.piece(data)
            if enough():
                break
        else:
            finish(answer)
        if answer.done:
            self._over(answer)

    def _over(self, answer: Answer) -> None:
        """httpx keeps the connection only where it has seen the end itself."""
        if answer.reusable:
            next(self._pieces, None)
        self._response.close()

    def _extensions(self) -> dict[str, Any]:
        return {}

    def _mapped(self, error: Exception) -> AiaasError:
        return mapped(error, self.origin, self._through, self.sent)

    # ------------------------------------------------------------ between requests
    def usable(self) -> bool:
        return False

    def close(self) -> None:
        with self._guard:
            self._gone = True
            if not self._busy:
                self._end()
            else:
                self._shut()

    def _shut(self) -> None:
        """Make the thread come back, if there is a way."""

    def _end(self) -> None:
        if self._response is not None:
            with contextlib.suppress(Exception):  # a connection that was shut needs no orderly end
                self._response.close()


# ---------------------------------------------------------------- out
def arequest(httpx: Any, message: Message, until: float | None) -> Any:
    """The request as `handle_async_request` takes it."""
    return _request(httpx, message, _apieces, until, {})


def _request(
    httpx: Any,
    message: Message,
    pieces: Callable[[tuple[Buffer, ...]], Any],
    until: float | None,
    extensions: dict[str, Any],
) -> Any:
    parts = message.request.body
    seconds = left(until)
    connecting = CONNECT_LIMIT if seconds is None else min(seconds, CONNECT_LIMIT)
    timeout = {"connect": connecting, "read": seconds, "write": seconds, "pool": seconds}
    return httpx.Request(
        message.request.method,
        message.request.url,
        headers=message.revealed(),
        content=b"".join(parts) if message.size <= PIECE else pieces(parts),
        extensions={"timeout": timeout, **extensions},
    )


def _pieces(parts: tuple[Buffer, ...]) -> Iterator[bytes]:
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


async def _apieces(parts: tuple[Buffer, ...]) -> AsyncIterator[bytes]:
    for piece in _pieces(parts):
        yield piece


# ---------------------------------------------------------------- in
def begin(answer: Answer, response: Any) -> None:
    """The head of a response."""
    answer.begun = True
    version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii").removeprefix("HTTP/")
    answer.head(response.status_code, version, response.headers.raw)


def finish(answer: Answer) -> None:
    """No more of the body comes. httpx's own transports tell a body that was cut; others may not."""
    if answer.room is not None:
        answer.eof()
    else:
        answer.end()


# ---------------------------------------------------------------- failures
def mapped(error: Exception, origin: Origin, through: str, sent: int) -> AiaasError:
    """What a transport raised, as an error of ours.

    `through` completes "can't connect to HOST:PORT ...". `sent`: 0 nothing went out, 1 some of it may have, 2 the
    head of the request did.
    """
    kinds, verdict = names(error), _tls_verdict(error)
    if not (kinds or verdict or isinstance(error, OSError)):
        hint = "The original error is this one's __cause__; an async transport serves one event loop only"
        return ConfigError(f"network.transport raised {type(error).__name__}", hint=hint)
    if verdict is not None and kinds & {"ConnectError", "ReadError", "WriteError"}:
        return lost(origin, verdict, through) if sent else unreachable(origin, verdict, through)
    if "ProxyError" in kinds:
        proxy = through.removeprefix(" through ") or "the proxy"
        return ConnectError(f"{proxy} refused to connect to {origin.where}: {_told(error)}", retryable=False)
    if "ConnectTimeout" in kinds:
        return ConnectError(f"can't connect to {origin.where}{through}: it doesn't answer")
    if "PoolTimeout" in kinds:
        return DeadlineExceededError(f"the call ran out of time waiting for a connection to {origin.where}{through}")
    if "TimeoutException" in kinds or isinstance(error, TimeoutError):
        return late(origin, connecting=not sent)
    if "UnsupportedProtocol" in kinds or ("LocalProtocolError" in kinds and sent < 2):
        return ConfigError(f"the request can't go to {origin.where}{through}: {_told(error)}")
    if "ProtocolError" in kinds and not _cut(error):
        return ProtocolError("the answer isn't HTTP", hint=f"The parser says: {_told(error)}")
    if sent and "ConnectError" not in kinds:
        return ConnectionLostError(f"the connection to {origin.where}{through} was lost: {_told(error)}")
    return ConnectError(f"can't connect to {origin.where}{through}: {_told(error)}")


def cause(error: Exception) -> Exception | None:
    """The cause that goes up: an error of a transport's own code. httpx's say nothing more than ours."""
    return None if names(error) or isinstance(error, OSError) else error


def _tls_verdict(error: BaseException | None) -> SSLError | None:
    """httpx wraps httpcore's error, which wraps what TLS said."""
    for _ in range(5):
        if error is None or isinstance(error, SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _cut(error: Exception) -> bool:
    """httpcore has one class for rubbish and for an end that came too early; only its words tell them apart."""
    return any(word in str(error) for word in _CUT)


def _told(error: Exception) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(error)[:200]) or type(error).__name__
