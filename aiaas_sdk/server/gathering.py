"""A connection's writes of one turn of the event loop, as one: an answer's head and small body leave together.

Each write of its own is a call of the kernel, which costs more than anything else in a small answer, and a packet.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from aiaas_sdk.flow import Buffer

__all__ = ["Gathering"]

_MOST = 64 * 1024
"""Bytes that are held back; more go on at once, so that the transport may say that it is full."""


class _Turn:
    """The connections of one event loop that hold something back; one callback for all of them."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Gathering] = []

    def add(self, one: Gathering, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            loop.call_soon(self._end, loop)
        self._waiting.append(one)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            try:
                one.flush()
            except Exception as error:  # the others' answers leave all the same
                loop.call_exception_handler({"message": "an answer couldn't be written", "exception": error})


def _turn_of(loop: asyncio.AbstractEventLoop) -> _Turn:
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = _Turn()
    return turn


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


class Gathering(asyncio.Transport):
    """A transport before another one."""

    __slots__ = ("_held", "_loop", "_size", "_transport", "_turn")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._turn = transport, loop, _turn_of(loop)
        self._held: list[Buffer] = []
        self._size = 0

    def write(self, data: Buffer) -> None:
        """As the other's, at the end of this turn."""
        if not self._held:
            self._turn.add(self, self._loop)
        self._held.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self.flush()

    def flush(self) -> None:
        """Let what is held go."""
        held, size = self._held, self._size
        if not held:
            return
        self._held, self._size = [], 0
        if self._transport.is_closing():
            return
        if size <= _MOST:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
            return
        for data in held:
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._held, self._size = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
