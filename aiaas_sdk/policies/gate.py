"""Places for requests in flight, which threads and event loops share."""

from __future__ import annotations

import os

from aiaas_sdk.flow import Flow, wait
from aiaas_sdk.transport.places import Place, Places

__all__ = ["LONGEST", "Gate"]

LONGEST = 60.0
"""Seconds that a call without a deadline waits for a place."""


class Gate:
    """`size` places, given in the order in which they were asked for. A child process has all of them free."""

    def __init__(self, size: int, what: str) -> None:
        self._size, self._what = size, what
        self._reset()

    def _reset(self) -> None:
        self._process, self._places = os.getpid(), Places(self._size)

    def enter(self) -> Flow[Place]:
        """A place, now or when its turn has come; `leave` gives it back. A wait that is given up takes none."""
        if self._process != os.getpid():
            self._reset()
        places = self._places
        if (place := places.free()) is not None:
            return place
        turn = places.turn()
        try:
            return (yield from wait(turn, self._what, LONGEST))
        except BaseException:
            places.give_up(turn)
            raise
