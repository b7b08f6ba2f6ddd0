"""One request and its reply without any I/O: h11 writes the head and reads the answer."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import h11

from aiaas_sdk._version import __version__
from aiaas_sdk.errors import ConfigError, ConnectError, ConnectionLostError, ProtocolError, TLSError
from aiaas_sdk.flow import Reply, Request

__all__ = ["MAX_BODY", "Exchange", "Origin", "origin_of", "tls", "unreachable"]

MAX_BODY = 1 << 30
"""Bytes of a reply's body at most."""
MAX_HEAD = 100 * 1024
"""Bytes of a reply's head at most; httpcore allows as many."""

Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@lru_cache(1)
def tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes tens of milliseconds."""
    return ssl.create_default_context()


def unreachable(origin: Origin, error: OSError) -> ConnectError:
    where = f"{origin[1]}:{origin[2]}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
        return TLSError(f"no TLS connection to {where}: {reason}")
    reason = error.strerror or type(error).__name__
    return ConnectError(f"can't connect to {where}: {reason}", hint="Is the server running there")


class Exchange:
    """Feed it what arrives; `reply` is set once the answer is whole."""

    def __init__(self, request: Request) -> None:
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.head = self._encode(request)
        self.answered = False
        self.reply: Reply | None = None
        self._status, self._headers, self._body = 0, dict[str, str](), bytearray()

    def _encode(self, request: Request) -> bytes:
        parts = urlsplit(request.url)
        size = sum(memoryview(part).nbytes for part in request.body)
        headers = {
            "host": parts.netloc,
            "user-agent": f"aiaas-sdk/{__version__}",
            "accept-encoding": "identity",
            **_lower(request.headers),
            "content-length": str(size),
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            event = h11.Request(method=request.method, target=target, headers=list(headers.items()))
            head = self._machine.send(event)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise ConfigError("a header or the address holds characters that HTTP can't carry") from None
        # The body's parts are sent as they are, beside h11, which is told their size only.
        self._machine.send_with_data_passthrough(h11.Data(data=_Sized(size)))  # type: ignore[arg-type]
        self._machine.send(h11.EndOfMessage())
        return head or b""

    @property
    def reusable(self) -> bool:
        return self._machine.our_state is h11.DONE and self._machine.their_state is h11.DONE

    def feed(self, data: bytes) -> None:
        """Bytes from the peer, empty at its end. Raises where they can't be an answer or stop too early."""
        self.answered = self.answered or bool(data)
        try:
            self._machine.receive_data(data)
            while self.reply is None:
                event = self._machine.next_event()
                if event is h11.NEED_DATA:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            if data:
                raise ProtocolError(f"the answer isn't HTTP/1.1: {error}") from None
            raise ConnectionLostError("the connection ended before the whole answer had come") from None

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Response):
            self._status = event.status_code
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            self._check_head()
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > MAX_BODY:
                raise ProtocolError(f"the answer is larger than {MAX_BODY} bytes")
        elif isinstance(event, h11.EndOfMessage):
            self.reply = Reply(self._status, self._headers, memoryview(self._body))
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionLostError("the connection ended before an answer came")

    def _check_head(self) -> None:
        if self._headers.get("content-encoding", "identity") != "identity":
            raise ProtocolError(f"the answer is compressed ({self._headers['content-encoding'][:20]}), unasked")
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY:
            raise ProtocolError(f"the answer announces {length[:20]} bytes; at most {MAX_BODY} are taken")


class _Sized:
    """Stands for the body where h11 only counts."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
