"""Requests through a proxy, by httpx's own transport; the only file that knows httpx.

httpx2 is used instead where it is installed. Its timeouts are per read, so a peer that drips outlives them;
therefore it works in a thread, and a call that gives up shuts the socket under it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from aiaas_sdk.errors import (
    AiaasError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    ProtocolError,
)
from aiaas_sdk.flow import Buffer
from aiaas_sdk.transport import tls
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.connecting import CONNECT_LIMIT
from aiaas_sdk.transport.connection import readable
from aiaas_sdk.transport.failures import late, unreachable
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.proxies import Proxy
from aiaas_sdk.transport.steps import Steps, blocking, left

if TYPE_CHECKING:
    import httpx
else:
    try:
        import httpx2 as httpx
    except ModuleNotFoundError:
        import httpx

__all__ = ["Proxied", "listed_context"]

PIECE = 1 << 18
"""Bytes handed to httpx at once; a large `bytes` costs it time that grows with the square of the size."""


def listed_context() -> ssl.SSLContext:
    """Trusts the list of authorities that comes with httpx, for systems that have none."""
    return httpx.create_ssl_context()


class Proxied:
    """One way to an origin through a proxy: a transport with at most one connection.

    All work is done in a thread, one piece at a time. `close` may come while it is at work: the socket is shut
    then, and the thread, which comes back with an error that nobody waits for, clears away.
    """

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        self.origin, self.sent = origin, 0
        self._proxy = proxy
        self._transport = _transport(proxy)
        self._pieces: Iterator[bytes] = iter(())
        self._response: httpx.Response | None = None
        self._socket: socket.socket | None = None  # a duplicate, so that it stays ours whatever httpx does
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

    def _away(self, work: Callable[[], None], until: float | None) -> Steps[None]:
        self._busy = True
        yield from blocking(partial(self._guarded, work), until)

    # ------------------------------------------------------------ in the thread
    def _guarded(self, work: Callable[[], None]) -> None:
        """The work; what httpx raises comes out as our own error."""
        try:
            work()
        except AiaasError:
            raise
        except Exception as error:
            raise self._mapped(error) from None
        finally:
            with self._guard:
                self._busy = False
                if self._gone:
                    self._end()

    def _exchange(self, message: Message, answer: Answer, until: float | None) -> None:
        seconds = left(until)
        connecting = CONNECT_LIMIT if seconds is None else min(seconds, CONNECT_LIMIT)
        request = httpx.Request(
            message.request.method,
            message.request.url,
            headers=message.fields,
            content=_body(message),
            extensions={
                "timeout": {"connect": connecting, "read": seconds, "write": seconds, "pool": seconds},
                "trace": self._trace,
            },
        )
        response = self._transport.handle_request(request)
        answer.begun = True
        self._response, self._pieces = response, response.iter_raw()
        version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii").removeprefix("HTTP/")
        answer.head(response.status_code, version, response.headers.raw)
        if answer.done:
            self._over(answer)

    def _pull(self, answer: Answer, enough: Callable[[], bool]) -> None:
        for data in self._pieces:
            answer.piece(data)
            if enough():
                break
        else:
            answer.end()
        if answer.done:
            self._over(answer)

    def _over(self, answer: Answer) -> None:
        """httpx keeps the connection only where it has seen the end itself."""
        if answer.reusable:
            next(self._pieces, None)
        if self._response is not None:
            self._response.close()

    def _trace(self, event: str, details: dict[str, Any]) -> None:
        """httpcore tells what it does: the socket as soon as there is one, and whether the request went out."""
        if event.endswith("connect_tcp.complete"):
            made = details["return_value"].get_extra_info("socket")
            with self._guard:
                if self._socket is not None:
                    self._socket.close()
                self._socket = socket.socket(fileno=os.dup(made.fileno()))
                if self._gone:
                    self._shut()
        elif event.endswith("send_request_headers.started") and details["request"].method != b"CONNECT":
            self.sent = 1

    # ------------------------------------------------------------ between requests
    def usable(self) -> bool:
        return self._socket is not None and not readable(self._socket)

    def close(self) -> None:
        with self._guard:
            self._gone = True
            if not self._busy:
                self._end()
            else:
                self._shut()

    def _shut(self) -> None:
        """Whoever reads or writes comes back with an error."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        if self._response is not None:
            with contextlib.suppress(Exception):  # a connection that was shut needs no orderly end
                self._response.close()
        self._transport.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ------------------------------------------------------------ failures
    def _mapped(self, error: Exception) -> AiaasError:
        proxy = f"the proxy {self._proxy.where} ({self._proxy.variable})"
        verdict = _tls_verdict(error)
        if verdict is not None and isinstance(error, httpx.ConnectError):
            return unreachable(self.origin, verdict)
        if isinstance(error, httpx.ProxyError):
            return ConnectError(f"{proxy} refused to connect to {self.origin.where}: {_told(error)}", retryable=False)
        if isinstance(error, httpx.ConnectTimeout):
            return ConnectError(f"can't connect to {self.origin.where} through {proxy}: it doesn't answer")
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return late(self.origin, connecting=not self.sent)
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return ConfigError(f"the request can't go through {proxy}: {_told(error)}")
        if isinstance(error, httpx.RemoteProtocolError) and not _cut(error):
            return ProtocolError("the answer isn't HTTP/1.1", hint=f"The parser says: {_told(error)}")
        if self.sent:
            return ConnectionLostError(f"the connection to {self.origin.where} through {proxy} was lost")
        return ConnectError(f"can't connect to {self.origin.where} through {proxy}: {_told(error)}")


def _transport(proxy: Proxy) -> httpx.HTTPTransport:
    context = tls.context()
    try:
        through = httpx.Proxy(proxy.url, ssl_context=context if proxy.url.startswith("https:") else None)
        return httpx.HTTPTransport(verify=context, trust_env=False, proxy=through)
    except ImportError:
        hint = f'Install it: pip install "{httpx.__name__}[socks]"'
        raise ConfigError(
            f"the proxy of {proxy.variable} speaks SOCKS, for which a package is missing", hint=hint
        ) from None
    except (httpx.InvalidURL, ValueError):
        raise ConfigError(
            f"{proxy.variable} holds no address of a proxy", hint="Write http://HOST:PORT, or unset it"
        ) from None


def _body(message: Message) -> bytes | Iterable[bytes]:
    parts = message.request.body
    return b"".join(parts) if message.size <= PIECE else _pieces(parts)


def _pieces(parts: tuple[Buffer, ...]) -> Iterator[bytes]:
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


def _tls_verdict(error: BaseException | None) -> ssl.SSLError | None:
    """httpx wraps httpcore's error, which wraps what TLS said."""
    for _ in range(5):
        if error is None or isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _cut(error: Exception) -> bool:
    """httpcore has one class for rubbish and for an end that came too early; only its words tell them apart."""
    return any(word in str(error) for word in ("disconnected", "closed connection", "without sending"))


def _told(error: Exception) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(error)[:200]) or type(error).__name__
