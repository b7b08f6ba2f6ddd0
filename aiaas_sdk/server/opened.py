"""A version that is open, and the calls that use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiaas_sdk.model import AsyncModel
from aiaas_sdk.records.model import ModelInfo

__all__ = ["Opened"]


class Opened:
    """One opened version. It is closed when it is retired and its last call has left.

    Attributes:
        model, info: what was opened.
        size: bytes of memory that it counts for.
        users: calls that use it now.
        used: when the last one left (`time.monotonic`).
        retired: it takes no further call.
    """

    __slots__ = ("_closing", "_left", "_once", "info", "model", "retired", "size", "used", "users")

    def __init__(
        self, model: AsyncModel[Any, Any], info: ModelInfo, size: int, left: Callable[[Opened], None], users: int
    ) -> None:
        """`left` is told whenever nobody uses it any more; `users` are those who have waited for it."""
        self.model, self.info, self.size = model, info, size
        self.users, self.used, self.retired = users, time.monotonic(), False
        self._left = left
        self._once: AsyncModel[Any, Any] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return not self.users and not self.retired

    @property
    def closed(self) -> bool:
        return self._closing is not None

    @property
    def once(self) -> AsyncModel[Any, Any]:
        """The model without retries."""
        if self._once is None:
            self._once = self.model.with_options(retry=None)
        return self._once

    def leave(self) -> None:
        """A call has ended."""
        self.users -= 1
        if not self.users:
            self.used = time.monotonic()
            self._close_if_over()
            self._left(self)

    def retire(self) -> None:
        """Take no further call, and close after those that run."""
        if not self.retired:
            self.retired = True
            self._close_if_over()
            self._left(self)

    def _close_if_over(self) -> None:
        if self.retired and not self.users and self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if self._once is not None:
            await self._once.aclose()
        await self.model.aclose()

    async def end(self) -> None:
        """Close it now, whoever uses it."""
        self.retired, self.users = True, 0
        self._close_if_over()
        self._left(self)
        if self._closing is not None:
            await self._closing
