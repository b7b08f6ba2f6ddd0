"""A request as it travels: its head as bytes, and what of it is still to be sent."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from urllib.parse import urlsplit

from aiaas_sdk._version import __version__
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Buffer, Request
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.transport.origin import PORTS, origin_of

__all__ = ["Message", "Outgoing"]

JOINED = 1 << 16
"""Bytes up to which a request is sent as one piece: below, a copy is cheaper than a longer system call."""
LONGEST = 1 << 16
"""Characters of a header's value."""
SHORT = 64
"""Characters of a value that is remembered as one that has been checked."""
VIEWS = 64
"""Buffers for one system call; every system takes 16 at least (POSIX), Linux 1024."""

# RFC 9110 5.6.2 and 5.5; a value of ASCII only, without blanks at its ends
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_TARGET = re.compile(r"[!-~]+")
_UNSIZED = frozenset(("GET", "HEAD", "DELETE"))  # methods that have no length where they have no body
_OURS = frozenset(("content-length", "transfer-encoding"))


class Message:
    """A request, checked: what can't be written as HTTP/1.1 is refused here, before anything is sent."""

    __slots__ = ("fields", "request", "size")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.size = sum(map(_size, request.body))
        self.fields = _fields(request, self.size)

    def outgoing(self) -> Outgoing:
        """All of it, to be sent once."""
        head = _first_line(self.request.method, self.request.url)
        for name, value in self.fields.items():
            head += f"{name}: {value if type(value) is str else _text(value)}\r\n"
        return Outgoing(f"{head}\r\n".encode("ascii"), self.request.body, self.size)

    def revealed(self) -> dict[str, str]:
        """The fields as they are sent. Nobody keeps them: a traceback can show whatever a frame holds."""
        return {name: _text(value) for name, value in self.fields.items()}


class Outgoing:
    """What is still to be sent: views, of which `advance` drops what went out. Falsy when nothing is left."""

    __slots__ = ("_views", "sent")

    def __init__(self, head: bytes, body: tuple[Buffer, ...], size: int) -> None:
        if len(head) + size < JOINED:
            self._views = deque((memoryview(b"".join((head, *body))),))
        else:
            self._views = deque(_view(part) for part in (head, *body) if len(part))
        self.sent = 0

    def __bool__(self) -> bool:
        return bool(self._views)

    def several(self) -> list[memoryview]:
        """Views for one `sendmsg`."""
        return list(self._views) if len(self._views) <= VIEWS else [self._views[at] for at in range(VIEWS)]

    def single(self, limit: int | None) -> memoryview:
        """The first view, or its first `limit` bytes."""
        return self._views[0][:limit]

    @property
    def many(self) -> bool:
        return len(self._views) > 1

    def advance(self, count: int) -> None:
        """`count` bytes went out."""
        self.sent += count
        views = self._views
        while views and count >= len(views[0]):
            count -= len(views.popleft())
        if count:
            views[0] = views[0][count:]


def _view(part: Buffer) -> memoryview:
    view = part if isinstance(part, memoryview) else memoryview(part)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _size(part: Buffer) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def _text(value: str | Hidden) -> str:
    return value.reveal() if isinstance(value, Hidden) else value


def _fields(request: Request, size: int) -> dict[str, str | Hidden]:
    """The header fields but Host, in lower case; the request's own win over ours."""
    fields: dict[str, str | Hidden] = {"user-agent": f"aiaas-sdk/{__version__}", "accept-encoding": "identity"}
    for name, value in request.headers.items():
        if type(value) is str and len(value) <= SHORT:
            fields[_known(name, value)] = value
        else:
            fields[_checked(name, _text(value))] = value
    for name in _OURS:
        fields.pop(name, None)
    if size or request.method not in _UNSIZED:
        fields["content-length"] = str(size)
    return fields


def _checked(name: str, value: str) -> str:
    """The name in lower case. Raises where HTTP can't carry name or value; 64 KiB are more than any server takes."""
    if not _NAME.fullmatch(name):
        raise ConfigError("the name of a header holds characters that HTTP can't carry")
    if len(value) > LONGEST or not _VALUE.fullmatch(value):
        raise ConfigError(
            f"the header {name!r} holds characters that HTTP can't carry, or more than {LONGEST} of them",
            hint="Use plain ASCII without line breaks, and no blanks at its ends",
        )
    return name.lower()


_known = lru_cache(512)(_checked)
"""Most headers are those of the request before. What is hidden isn't kept, nor what is long."""


@lru_cache(256)
def _first_line(method: str, url: str) -> str:
    """The request line and Host. A default port isn't named, as RFC 9110 7.2 and all browsers have it."""
    origin, parts = origin_of(url), urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        host = origin.host if origin.host.isascii() else origin.host.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not (_NAME.fullmatch(method) and _TARGET.fullmatch(target) and _TARGET.fullmatch(host)):
        raise ConfigError("the address holds characters that HTTP can't carry", hint="Percent-encode them")
    named = origin._replace(host=host).where
    default = origin.port == PORTS[origin.scheme]
    return f"{method} {target} HTTP/1.1\r\nhost: {named.rpartition(':')[0] if default else named}\r\n"
