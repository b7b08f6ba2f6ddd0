"""The look for what is new, again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["watch"]

logger = logging.getLogger("aiaas_sdk.server")


async def watch(look: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Look every so many seconds, until it is cancelled. What fails is logged, and the next look comes all the same."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await look()
        except Exception:
            logger.exception("looking for new versions failed; the next look is in %s s", seconds)
