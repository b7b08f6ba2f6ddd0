"""The faults, by name: each function gives one for a script of the fault server.

`At` says how far it goes before the fault: "accept" (nothing is read), "request" (the request was read, nothing
was said), "head" (half of the answer's head was sent), "body" (half of the body), and for an answer in chunks
"chunk header" (in the line with a chunk's size), "chunk" (half of a chunk), "last chunk" (all but the last one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pydantic_core import from_json, to_json

from aiaas_sdk.testing.fault_exchange import Exchange
from aiaas_sdk.testing.fault_model import Answer, Fields
from aiaas_sdk.wire.oip import HEADER_LENGTH

__all__ = [
    "At",
    "Fault",
    "answer",
    "chunked",
    "claim",
    "content",
    "cut",
    "drip",
    "edited",
    "endless",
    "page",
    "raw",
    "refuse",
    "reset",
    "slow",
    "stall",
    "status",
]

At = Literal["accept", "request", "head", "body", "chunk header", "chunk", "last chunk"]
PORTAL = """<!DOCTYPE html><html><head><title>Sign in</title><script>let answer = 42;</script></head>
<body><h1>Welcome to the network</h1><p>Please sign in to go on.</p></body></html>"""


@dataclass(frozen=True, slots=True)
class Fault:
    """What the server does with one request, one connection or its port. Your own: `Fault("name", act)`.

    Attributes:
        name: what the log calls it.
        act: does it; it is handed the `Exchange`.
        on: "request" acts on the next request; "connection" on the next new connection, of which nothing is
            read; "port" closes the port as soon as it is next.
        seconds: how long the port stays closed.
    """

    name: str
    act: Callable[[Exchange], None] = field(repr=False)
    on: Literal["request", "connection", "port"] = "request"
    seconds: float = 0.0


# ---------------------------------------------------------------- right answers, on time or not
def answer(headers: Fields = ()) -> Fault:
    """The right answer; `headers` are added, or stand in place of those of the same name."""
    return Fault("answer", partial(_send, change=lambda right: right.with_fields(headers)))


def slow(seconds: float) -> Fault:
    """The right answer after a pause."""

    def act(exchange: Exchange) -> None:
        exchange.pause(seconds)
        _send(exchange)

    return Fault(f"slow({seconds} s)", act)


def chunked(size: int = 1 << 16) -> Fault:
    """The right answer in chunks of `size` bytes."""

    def act(exchange: Exchange) -> None:
        body = exchange.answer.body
        chunks = (_chunk(body[start : start + size]) for start in range(0, len(body), size))
        exchange.send(b"".join((exchange.answer.chunked_head(), *chunks, _chunk(b""))))

    return Fault("chunked", act)


# ---------------------------------------------------------------- the way there and back
def refuse(seconds: float) -> Fault:
    """The port is closed for so long, and so are the connections that carry no request."""
    return Fault(f"refuse({seconds} s)", _nothing, on="port", seconds=seconds)


def reset(at: At = "request") -> Fault:
    """A reset in the middle of things."""
    return Fault(f"reset({at})", partial(_after, at, Exchange.reset), on=_level(at))


def cut(at: At = "body") -> Fault:
    """An orderly end of the connection in the middle of things."""
    return Fault(f"cut({at})", partial(_after, at, Exchange.hang_up), on=_level(at))


def stall(at: At = "request") -> Fault:
    """Silence from there on; the connection stays open."""
    return Fault(f"stall({at})", partial(_after, at, Exchange.stall), on=_level(at))


def drip(
    at: Literal["handshake", "head", "body", "chunk header"] = "body", *, size: int = 1, every: float = 0.1
) -> Fault:
    """`size` bytes every so many seconds in that part of the right answer, or in a TLS handshake."""

    def act(exchange: Exchange) -> None:
        before, dripped, rest = (b"", _HANDSHAKE, b"") if at == "handshake" else _dripped(exchange.answer, at)
        exchange.send(before)
        exchange.drip(dripped, size, every)
        exchange.send(rest)
        if at == "handshake":
            exchange.hang_up()

    return Fault(f"drip({at})", act, on="connection" if at == "handshake" else "request")


def raw(data: bytes) -> Fault:
    """These bytes instead of an answer, then the end of the connection."""

    def act(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return Fault("raw", act)


# ---------------------------------------------------------------- other answers
def status(code: int, body: Any = None, *, headers: Fields = (), retry_after: str | float | None = None) -> Fault:
    """An answer of this status.

    Args:
        body: text, bytes or something for JSON; None for `{"error": "fault CODE"}`.
        headers: its header fields, pairs where a name comes twice.
        retry_after: the field Retry-After, as it is to be written.
    """
    pairs = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    if retry_after is not None:
        pairs.append(("retry-after", str(retry_after)))
    told = Answer.of(code, {"error": f"fault {code}"} if body is None else body, pairs)
    return Fault(f"status({code})", partial(_send, change=lambda right: told))


def page(code: int = 200) -> Fault:
    """A page of HTML, such as the sign-in of a network or a gateway's error."""
    return status(code, PORTAL, headers={"content-type": "text/html"})


def content(body: Any, headers: Fields = ()) -> Fault:
    """A 200 with another body than the right one: text, bytes, or something for JSON."""
    told = Answer.of(200, body, headers)
    return Fault("content", partial(_send, change=lambda right: told))


def edited(change: Callable[[dict[str, Any]], Any], *, tail: bytes = b"") -> Fault:
    """The right answer with its JSON changed in place, and `tail` behind its tensors' bytes."""
    return Fault("edited", partial(_send, change=lambda right: _edited(right, change, tail)))


def claim(size: int) -> Fault:
    """An answer that announces `size` bytes, of which the right body comes, then silence."""

    def act(exchange: Exchange) -> None:
        exchange.send(exchange.answer.with_fields({"content-length": str(size)}).head() + exchange.answer.body)
        exchange.stall()

    return Fault(f"claim({size})", act)


def endless(at: Literal["head", "body"], *, size: int = 1 << 16) -> Fault:
    """Header lines, or chunks, of `size` bytes without end (as far as 4 GiB)."""

    def act(exchange: Exchange) -> None:
        exchange.kept = False
        exchange.send(exchange.answer.chunked_head() if at == "body" else b"HTTP/1.1 200 OK\r\n")
        piece = _chunk(b" " * size) if at == "body" else b"x: " + b"y" * size + b"\r\n"
        for _ in range(0, 1 << 32, size):
            if exchange.over:
                return
            exchange.send(piece)

    return Fault(f"endless({at})", act)


# ---------------------------------------------------------------- how they do it
_HANDSHAKE = b"\x16\x03\x03\x40\x00" + b"\x02" * 1000  # a TLS record that announces 16 KiB


def _nothing(exchange: Exchange) -> None:
    """A port has no exchange."""


def _level(at: At) -> Literal["request", "connection"]:
    return "connection" if at == "accept" else "request"


def _send(exchange: Exchange, change: Callable[[Answer], Answer] = lambda right: right) -> None:
    told = change(exchange.answer)
    exchange.send(told.head() + told.body)
    if (told.header("connection") or "").lower() == "close":
        exchange.hang_up()


def _after(at: At, end: Callable[[Exchange], None], exchange: Exchange) -> None:
    if at not in ("accept", "request"):
        exchange.send(_begun(exchange.answer, at))
    end(exchange)


def _begun(right: Answer, at: At) -> bytes:
    """The right answer as far as that."""
    head, chunked_head, body = right.head(), right.chunked_head(), right.body
    half = body[: len(body) // 2]
    return {
        "head": head[: len(head) // 2],
        "body": head + half,
        "chunk header": chunked_head + b"00",
        "chunk": chunked_head + _chunk(body)[: len(half)],
        "last chunk": chunked_head + _chunk(body),
    }[at]


def _dripped(right: Answer, at: str) -> tuple[bytes, bytes, bytes]:
    """What comes at once, what drips, and what comes at once after it."""
    if at == "head":
        return b"", right.head(), right.body
    if at == "body":
        return right.head(), right.body, b""
    return right.chunked_head(), b"0" * 1000, _chunk(right.body) + _chunk(b"")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _edited(right: Answer, change: Callable[[dict[str, Any]], Any], tail: bytes) -> Answer:
    length = right.header(HEADER_LENGTH)
    head = right.body if length is None else right.body[: int(length)]
    document = from_json(head)
    change(document)
    written = to_json(document, inf_nan_mode="constants")
    fields = right.fields
    if length is not None:
        fields = right.with_fields({HEADER_LENGTH: str(len(written))}).fields
    return Answer(right.status, fields, written + right.body[len(head) :] + tail)
