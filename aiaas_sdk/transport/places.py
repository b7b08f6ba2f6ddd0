"""A number of places, one for each connection that may be open; threads and event loops wait for them in one line."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from concurrent.futures import Future

from aiaas_sdk.transport.steps import Steps, settled

__all__ = ["Place", "Places"]


class Place:
    """The right to one connection. One that is dropped without a word comes back too, so none can be lost."""

    __slots__ = ("_places",)

    def __init__(self, places: weakref.ref[Places]) -> None:
        self._places: weakref.ref[Places] | None = places

    def leave(self) -> None:
        """Give it to whoever waits longest; harmless when done twice."""
        reference, self._places = self._places, None
        places = None if reference is None else reference()
        if places is not None:
            places.give()

    __del__ = leave


class Places:
    """`size` places, first come, first served.

    Every step is one operation on a deque. A lock would do for all but `Place.__del__`, which may come while the
    same thread holds it. Whoever adds a place or a waiter looks afterwards whether there is a pair to be made, so
    that of any two who do so at the same time the later one sees both.
    """

    def __init__(self, size: int) -> None:
        self._self = weakref.ref(self)
        self._waiting: deque[Future[Place]] = deque()
        self._free = deque(Place(self._self) for _ in range(size))

    def enter(self, until: float | None) -> Steps[Place]:
        """A place, now or when its turn has come. Raises TimeoutError; a wait that is given up takes none."""
        if (place := self.free()) is not None:
            return place
        turn = self.turn()
        try:
            return (yield from settled(turn, until))
        except BaseException:
            self.give_up(turn)
            raise

    def free(self) -> Place | None:
        """A place, if one is free and nobody waits."""
        if not self._waiting:
            with contextlib.suppress(IndexError):
                return self._free.popleft()
        return None

    def turn(self) -> Future[Place]:
        """What is set when one's turn has come."""
        turn: Future[Place] = Future()
        self._waiting.append(turn)
        self._match()
        return turn

    def give(self) -> None:
        """One more is free."""
        self._free.append(Place(self._self))
        self._match()

    def give_up(self, turn: Future[Place]) -> None:
        """Whoever waited for it does no more."""
        if not turn.cancel():  # its turn had come all the same
            turn.add_done_callback(lambda came: came.result().leave())
            return
        with contextlib.suppress(ValueError, IndexError):  # it was just taken out; a cancelled one is passed over
            self._waiting.remove(turn)

    def _match(self) -> None:
        while self._free and self._waiting:
            try:
                place = self._free.popleft()
            except IndexError:  # another thread was quicker
                continue
            try:
                turn = self._waiting.popleft()
            except IndexError:
                self._free.append(place)
                continue
            if turn.set_running_or_notify_cancel():
                turn.set_result(place)
            else:
                self._free.append(place)
