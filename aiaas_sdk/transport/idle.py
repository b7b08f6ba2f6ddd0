"""Connections that wait for their next request."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Hashable
from typing import Protocol

__all__ = ["Idle", "Kept"]

IDLE_MOST = 64
"""Connections kept for one origin."""
IDLE_SECONDS = 30.0
"""How long one is kept; many servers end theirs earlier, which shows when it is taken."""


class Kept(Protocol):
    def usable(self) -> bool: ...
    def close(self) -> None: ...


class Idle:
    """The last one kept is the first one taken. Every step is one operation on a deque, so it needs no lock.

    After a fork the child drops what it inherited: two processes on one connection read each other's answers.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, deque[tuple[float, Kept]]] = {}
        self._process, self._closed = os.getpid(), False

    def take(self, key: Hashable) -> Kept | None:
        if self._process != os.getpid():
            self._drop()
            self._process = os.getpid()
        stack = self._kept.get(key)
        oldest = time.monotonic() - IDLE_SECONDS
        while stack:
            try:
                since, link = stack.pop()
            except IndexError:  # another thread was quicker
                break
            if since > oldest and link.usable():
                return link
            link.close()
        return None

    def keep(self, key: Hashable, link: Kept) -> None:
        if self._process != os.getpid():
            link.close()
            return
        now = time.monotonic()
        stack = self._kept.get(key)
        if stack is None:
            stack = self._kept.setdefault(key, deque())
        stack.append((now, link))
        while len(stack) > IDLE_MOST or (stack and stack[0][0] < now - IDLE_SECONDS):
            try:
                stack.popleft()[1].close()
            except IndexError:
                break
        if self._closed:
            self._drop()

    def close(self) -> None:
        """Close them all, and keep none from now on."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        for stack in list(self._kept.values()):
            while stack:
                try:
                    stack.pop()[1].close()
                except IndexError:
                    break

    def __del__(self) -> None:
        self._drop()
