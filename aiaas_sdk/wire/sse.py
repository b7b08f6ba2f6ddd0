"""Server-sent events, parsed from bytes however they are cut (WHATWG HTML, "Server-sent events").

Lines end with CR, LF or CRLF and nothing else: text may hold U+2028, U+0085 or a form feed.
"""

from __future__ import annotations

from typing import NamedTuple

from aiaas_sdk.errors import ProtocolError

__all__ = ["MAX_EVENT", "Event", "Events", "lone"]

MAX_EVENT = 16 * 1024**2
"""Bytes of one event at most."""
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its type ("message" where none is named) and its data, lines joined with LF."""

    type: str
    data: bytes


class Events:
    """Fed with what comes, gives the events that are whole. The time is linear in the bytes."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end hasn't come
        self._data: list[bytes] = []
        self._type = ""
        self._size = 0
        self._after_cr = False
        self._first = True

    @property
    def between(self) -> bool:
        """Whether what comes next begins an event."""
        return not (self._size or self._first or self._after_cr)

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete.

        Raises:
            ProtocolError: an event is larger than MAX_EVENT.
        """
        if not data:
            return []
        if self.between and lone(data):
            return [Event("message", data[6:-2])]
        if self._after_cr and data[:1] == b"\n":  # CRLF, cut in its middle
            data = data[1:]
        self._after_cr = data[-1:] == b"\r" if data else False
        events: list[Event] = []
        for line in data.splitlines(keepends=True):
            self._size += len(line)
            if self._size > MAX_EVENT:
                raise ProtocolError(f"the stream has an event larger than {MAX_EVENT} bytes")
            if line[-1:] not in (b"\n", b"\r"):
                self._line.append(line)
                continue
            line = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
            if self._line:
                line = b"".join((*self._line, line))
                self._line.clear()
            self._take(line, events)
        return events

    def end(self) -> list[Event]:
        """What the stream's end completes: servers leave out the last blank line, or the last line's end."""
        events: list[Event] = []
        if self._line:
            line = b"".join(self._line)
            self._line.clear()
            self._take(line, events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[Event]) -> None:
        if self._first:
            self._first, line = False, line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(Event(self._type or "message", b"\n".join(self._data)))
                self._data = []
            self._type, self._size = "", 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._type = value.removeprefix(b" ").decode("utf-8", "replace")


def lone(data: bytes) -> bool:
    """Whether this is one event as most servers write it, and mostly all that comes at once: nothing to take apart."""
    last = len(data) - 2
    return (
        data[:6] == b"data: " and data.find(b"\n") == last < MAX_EVENT and data[last:] == b"\n\n" and b"\r" not in data
    )
