"""HTTP/1.1 replies, parsed by httptools (C) where it is installed, else by h11.

Both feed an `Answer` in the same way and pass the same tests. A parser is used for one reply after another,
unless part of a body went past it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from aiaas_sdk.errors import AiaasError, ProtocolError
from aiaas_sdk.transport.answer import MAX_HEAD, Answer, Head

__all__ = ["FastParser", "Parser", "PlainParser", "make_parser"]


class Parser(Protocol):
    """Bytes in; calls of an `Answer`'s `head`, `piece`, `end` and `extra` out."""

    def begin(self, answer: Answer, method: str) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def forget(self) -> None:
        """Let go of the answer. `begin` comes before the next bytes."""


class _Known(NamedTuple):
    """The head of a reply that came whole with its body: its bytes, what it says, and the size of the body."""

    text: bytes
    head: Head
    size: int


def _known(head: Head, data: bytes) -> _Known | None:
    """What may be remembered of a reply whose only bytes these are; None where its head doesn't say its length."""
    end = data.find(b"\r\n\r\n") + 4
    size = head.headers.get("content-length", "")
    if end < 4 or not size.isdigit() or int(size) != len(data) - end or "transfer-encoding" in head.headers:
        return None
    return _Known(data[:end], head, len(data) - end) if head.kept else None


class FastParser:
    """httptools: llhttp, the parser of Node.js.

    Most replies on a connection have the head of the one before. One that comes whole at once, with the very same
    bytes as its head, isn't parsed again: that is half of what a small reply costs.

    It and its machine hold one another, so that only the garbage collector frees them; an answer, which may be
    large, mustn't wait for that.
    """

    _answer: Answer

    def __init__(self) -> None:
        import httptools

        self._errors = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self._fields: list[tuple[bytes, bytes]] = []
        self._machine = httptools.HttpResponseParser(self)
        self._known: _Known | None = None

    def begin(self, answer: Answer, method: str) -> None:
        self._answer, self._fields = answer, []
        self._fresh = True
        self._interim = self._over = False
        self._failure: AiaasError | None = None
        self._head: Head | None = None

    def feed(self, data: bytes) -> None:
        known, fresh, self._fresh = self._known, self._fresh, False
        if known is not None and fresh and data.startswith(known.text) and len(data) - len(known.text) == known.size:
            self._over = True
            self._answer.repeated(known.head, data[len(known.text) :])
            return
        self._parse(data)
        if fresh and self._over and self._head is not None:
            self._known = _known(self._head, data)

    def _parse(self, data: bytes) -> None:
        try:
            self._machine.feed_data(data)
        except self._errors as error:
            if self._failure is not None:  # raised inside a callback; httptools wraps some of them, not all
                raise self._failure from None
            if not self._over:
                raise ProtocolError("the answer isn't HTTP/1.1", hint=_reason(error)) from None
            self._answer.extra()

    def forget(self) -> None:
        self._answer = None  # type: ignore[assignment]  # `begin` gives the next one

    # ------------------------------------------------------------ httptools calls these
    def on_message_begin(self) -> None:
        if self._over:
            self._answer.extra()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._answer.headed:  # trailers are dropped
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._over:
            return
        status = self._machine.get_status_code()
        self._interim = 100 <= status < 200
        fields, self._fields = self._fields, []
        if not self._interim:
            try:
                self._head = self._answer.head(status, self._machine.get_http_version(), fields)
            except AiaasError as error:
                self._failure = error
                raise

    def on_body(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._answer.piece(data)
        except AiaasError as error:
            self._failure = error
            raise

    def on_message_complete(self) -> None:
        if not self._interim and not self._over:
            self._over = True
            self._answer.end()


class PlainParser:
    """h11, in Python."""

    _answer: Answer

    def begin(self, answer: Answer, method: str) -> None:
        import h11

        self._answer, self._over = answer, False
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        # h11 reads a reply only after a request; the real one was written without it
        self._machine.send(h11.Request(method=method, target="/", headers=[("host", "-")]))
        self._machine.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        import h11

        try:
            self._machine.receive_data(data)
            while not self._over:
                event = self._machine.next_event()
                if event is h11.NEED_DATA:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            raise ProtocolError("the answer isn't HTTP/1.1", hint=_reason(error)) from None
        if self._machine.trailing_data[0]:
            self._answer.extra()

    def forget(self) -> None:
        self._answer = None  # type: ignore[assignment]  # `begin` gives the next one

    def _take(self, event: object) -> None:
        import h11

        if isinstance(event, h11.Response):
            self._answer.head(event.status_code, event.http_version.decode("ascii"), event.headers.raw_items())
        elif isinstance(event, h11.Data):
            self._answer.piece(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._over = True
            self._answer.end()
        elif event is h11.PAUSED:
            self._over = True


def _reason(error: Exception) -> str:
    """What the parser says, in words of its own; it never repeats the peer's bytes beyond a few."""
    text = "".join(char if char.isprintable() else "?" for char in str(error)[:120]).rstrip(".")
    return f"The parser says: {text}"


def make_parser() -> Parser:
    """The faster of those that are installed."""
    try:
        return FastParser()
    except ModuleNotFoundError:
        return PlainParser()
