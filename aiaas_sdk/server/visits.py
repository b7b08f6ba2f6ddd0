"""One HTTP request on its way through the server: what is counted and logged of it.

It travels in a context variable, so that whoever learns something of it writes that down, whatever the protocol.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from aiaas_sdk.records.call import Call
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.room import Room

__all__ = ["Visit", "answered", "begun", "current", "visited"]


class Visit:
    """What is known of a request so far.

    Attributes:
        begun: when it came (`time.perf_counter`).
        model, version, verb: that it is for; "" where it is for none, or nobody knows.
        call: of the model, with the time it took and the rows or tokens; None where no model has answered.
        status: of the answer; 0 where none has begun.
        received, sent: bytes of the bodies.

    Args:
        room: what its body takes its memory from.
    """

    __slots__ = ("_held", "_room", "begun", "call", "model", "received", "sent", "status", "verb", "version")

    def __init__(self, room: Room) -> None:
        self._room, self._held = room, 0
        self.begun = time.perf_counter()
        self.model = self.version = self.verb = ""
        self.call: Call | None = None
        self.status = self.received = self.sent = 0

    def take(self, size: int) -> None:
        """Memory for so many bytes more of its body.

        Raises:
            RefusedError: 503, there is none.
        """
        try:
            self._room.take(size, self._held)
        except RefusedError:
            self.end()  # the rest is thrown away as it comes
            raise
        self._held += size

    def end(self) -> None:
        """Its memory is free."""
        self._room.give(self._held)
        self._held = 0


_current: ContextVar[Visit | None] = ContextVar("aiaas_visit", default=None)


def begun(room: Room) -> Visit:
    """A new request of this task."""
    visit = Visit(room)
    _current.set(visit)
    return visit


def current() -> Visit | None:
    """The request of this task, where HTTP brought it."""
    return _current.get()


def visited(model: str, verb: str = "") -> None:
    """The request is for this model, which is served."""
    if (visit := _current.get()) is not None:
        visit.model, visit.verb = model, verb or visit.verb


def answered(call: Call, version: str) -> None:
    """A model's answer to the request, and the version as it is counted; of several the last is kept."""
    if (visit := _current.get()) is not None:
        visit.call, visit.version = call, version
