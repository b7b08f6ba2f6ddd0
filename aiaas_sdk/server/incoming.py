"""Bodies of requests as they come, read by the kernel to where they are to lie.

A transport makes an object of each read, a parser another one of what is body in it, and who wants the whole copies all
of it together: five copies, and of a refused request's body nobody wants any. Here a body of known length, up to a
megabyte, has its memory when its head is there; what comes of it later passes no parser.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from weakref import WeakKeyDictionary, proxy

from aiaas_sdk.server.bodies import aligned
from aiaas_sdk.server.heads import Head

__all__ = ["Incoming", "Inlet", "Space", "Waste", "space_of"]

_ROOM = 256 * 1024
"""Bytes that are read at once, where they are looked at or thrown away at once."""
_MOST = 64 * 1024**2
"""Bytes of all bodies that come so, before somebody reads them; others come as far as they are read."""


class Space:
    """Memory of one event loop's connections.

    Attributes:
        room: for what is read next; each connection looks at it before another one reads.
        free: bytes that bodies may take which nobody has read yet.
    """

    __slots__ = ("__weakref__", "free", "room")

    def __init__(self) -> None:
        self.room = memoryview(bytearray(_ROOM))
        self.free = _MOST


def space_of(loop: asyncio.AbstractEventLoop) -> Space:
    """The loop's."""
    space = _spaces.get(loop)
    if space is None:
        space = _spaces[loop] = Space()
    return space


_spaces: WeakKeyDictionary[asyncio.AbstractEventLoop, Space] = WeakKeyDictionary()


class Incoming:
    """The body of a request under way, of which some bytes came with the head.

    Args:
        cycle: uvicorn's record of the request, whose `receive` is this one's.
        head: the request's, with a length.
        space: what its memory is taken from.

    Attributes:
        left: bytes that haven't come.
    """

    __slots__ = ("_at", "_buffer", "_cycle", "_size", "_space", "left")

    def __init__(self, cycle: Any, head: Head, space: Space) -> None:
        assert head.length is not None
        came = cycle.body
        self._cycle = proxy(cycle)  # which holds this
        self._at, self.left = len(came), head.length - len(came)
        self._buffer: memoryview | None = aligned(head.length, head.text)
        self._buffer[: self._at] = came
        self._space, self._size = space, head.length
        space.free -= head.length
        cycle.message_event.clear()
        cycle.receive = self.receive

    def room(self) -> memoryview:
        """For what comes next; that of everybody where nobody wants it any more."""
        return self._space.room[: self.left] if self._buffer is None else self._buffer[self._at :]

    def came(self, size: int) -> None:
        """So many bytes have been read."""
        self._at, self.left = self._at + size, self.left - size

    def take(self, data: memoryview) -> None:
        """What has been read elsewhere."""
        self.room()[: len(data)] = data
        self.came(len(data))

    def drop(self) -> memoryview | None:
        """Keep it no longer; it is given to whoever wants it."""
        buffer, self._buffer = self._buffer, None
        self._space.free += self._size
        self._size = 0
        return buffer

    def __del__(self) -> None:
        self.drop()  # of a request that was answered, or left, without being read

    async def receive(self) -> dict[str, Any]:
        """ASGI's: the whole body, as one piece."""
        cycle = self._cycle
        if not cycle.disconnected and not cycle.response_complete:
            cycle.flow.resume_reading()
            await cycle.message_event.wait()
            cycle.message_event.clear()
        buffer = self.drop()
        if cycle.disconnected or cycle.response_complete or buffer is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": buffer, "more_body": False}


class Waste:
    """The rest of the body of a request that nobody took in; it is thrown away.

    Attributes:
        left: bytes that haven't come.
    """

    __slots__ = ("_space", "left")

    def __init__(self, left: int, space: Space) -> None:
        self.left, self._space = left, space

    def room(self) -> memoryview:
        return self._space.room[: self.left]

    def came(self, size: int) -> None:
        self.left -= size


class Connection(Protocol):
    """What an inlet serves."""

    def room(self) -> memoryview: ...
    def came(self, size: int) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Inlet(asyncio.BufferedProtocol):
    """A transport's protocol for a connection that says itself where bytes are to lie: transports ask no protocol for
    that which can also be handed bytes, as uvicorn's can."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.came(nbytes)

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
