"""What the head of a request says, understood once: a client's requests differ in their bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.types import Scope

from aiaas_sdk.backends.base import ATTEMPT, TIMEOUT
from aiaas_sdk.wire.oip import HEADER_LENGTH

__all__ = ["Head", "head_in", "head_of"]

_LENGTHS = (b"content-length", b"transfer-encoding")
_NUMBER = re.compile("[0-9]{1,18}")
_RETRIES = "x-stainless-retry-count"
"""OpenAI's own clients send it; they ask again after 408, 409, 429 and any 5xx."""
_THROWN_AWAY = 1024**2  # bytes of a refused body for which the connection goes on
_EACH_ITS_OWN = frozenset(
    ("authorization", "cookie", "proxy-authorization", "traceparent", "x-api-key", "x-request-id")
)
"""Headers whose requests aren't remembered: a secret is nobody's to keep, and an id never comes again."""
_LONGEST, _MOST = 2048, 256  # bytes of a head, and heads that are remembered
Lines = Sequence[tuple[bytes, bytes]]


class Head:
    """The headers of a request. Those of many requests are one object: it is only read.

    Attributes:
        headers: by their names in lower case; of one that stands there twice, the last.
        lengths: how many headers say where the body ends.
        hosts: each Host, without its port.
        origin: the page that a browser sends it for; None where none does.
        encoding: of the body: "" for none.
        length: bytes of the body; None where nobody says it; -1 where the header is none.
        plain: whether it is remembered: it is short, and no line is a secret or an id.
        text: bytes of JSON before the tensors; 0 where nobody says it.
        waits: milliseconds for which whoever sent it waits; None where nobody says it.
        retries: whether the caller asks again by himself where that may help: then nobody here does it for him.
        costly: whether what still comes, if it is refused, costs more than its connection. Up to a megabyte it is read
            and thrown away, which takes a fraction of a new connection's time. A body whose length nobody said may
            have no end. And a client that waits for a 100 (RFC 9110 10.1.1) sends its body or doesn't: where its next
            request begins, nobody knows.
        ends: whether the client wants the connection to end with the answer.
    """

    __slots__ = (
        "costly", "encoding", "ends", "headers", "hosts", "length", "lengths", "origin", "plain", "retries", "text",
        "waits",
    )  # fmt: skip

    def __init__(self, lines: Lines) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines}
        self.headers: Mapping[str, str] = headers
        self.lengths = sum(name in _LENGTHS for name, _ in lines)
        self.hosts = tuple(_host(value) for name, value in lines if name == b"host")
        self.origin = next((value for name, value in lines if name == b"origin"), None)
        encoding = headers.get("content-encoding", "").strip().lower()
        self.encoding = "" if encoding == "identity" else encoding
        self.length = None
        if "content-length" in headers and "transfer-encoding" not in headers:
            self.length = _number(headers, "content-length", -1)
        self.text = _number(headers, HEADER_LENGTH, None) or 0
        self.waits = _number(headers, TIMEOUT, None)
        self.retries = ATTEMPT in headers or _RETRIES in headers
        endless = "transfer-encoding" in headers or "expect" in headers
        self.costly = endless or not 0 <= (self.length or 0) <= _THROWN_AWAY
        self.ends = headers.get("connection", "").lower() == "close"
        self.plain = _EACH_ITS_OWN.isdisjoint(headers) and sum(map(len, headers.values())) <= _LONGEST


def head_in(scope: Scope) -> Head:
    """The head of the request that this scope is of."""
    head: Head | None = scope.get("aiaas.head")
    if head is None:
        head = scope["aiaas.head"] = head_of(scope["headers"])
    return head


def head_of(lines: Lines) -> Head:
    """The head of these header lines, as ASGI gives them."""
    key = tuple(lines)
    found = _heads.get(key)
    if found is None:
        found = Head(lines)
        if found.plain:
            if len(_heads) >= _MOST:
                _heads.clear()
            _heads[key] = found
    return found


_heads: dict[tuple[tuple[bytes, bytes], ...], Head] = {}


def _host(value: bytes) -> str:
    """The host's name, without its port."""
    host = value.decode("latin-1").strip().lower()
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _number(headers: Mapping[str, str], name: str, otherwise: int | None) -> int | None:
    text = headers.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else otherwise
