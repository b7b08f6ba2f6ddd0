"""State that the models of a process share, for as long as one of them holds it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Shared"]

State = TypeVar("State")


class Shared(Generic[State]):
    """One state for each key."""

    def __init__(self) -> None:
        self._states: weakref.WeakValueDictionary[Hashable, State] = weakref.WeakValueDictionary()
        self._guard = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], State]) -> State:
        """The state of the key; made where nobody holds one."""
        with self._guard:
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = make()
            return state
