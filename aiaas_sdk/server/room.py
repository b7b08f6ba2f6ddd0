"""The memory that the bodies of all requests under way take together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiaas_sdk.server.errors import PAUSE, RefusedError

__all__ = ["Room"]


class Room:
    """What is left of it. A request counts with the bytes that have come, not with those that it announces: who sends
    slowly keeps nobody out.

    Args:
        limit: bytes. A body alone is taken, however large.
    """

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0

    def take(self, size: int, held: int) -> None:
        """So many bytes for a request that holds so many already.

        Raises:
            RefusedError: 503, there aren't so many.
        """
        if self._used + size > self._limit and self._used > held:
            raise RefusedError(
                503, "the server has too many large requests; try again later", retry_after=PAUSE, unread=True
            )
        self._used += size

    def give(self, size: int) -> None:
        """They are free again."""
        self._used -= size

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """So many bytes for the length of a `with`: of a request that comes whole.

        Raises:
            RefusedError: 503, there aren't so many.
        """
        self.take(size, 0)
        try:
            yield
        finally:
            self.give(size)
