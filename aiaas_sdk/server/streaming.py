"""Answers that come piece by piece, as server-sent events."""

from __future__ import annotations

import asyncio

from starlette.types import Send

from aiaas_sdk.server.allowances import piece
from aiaas_sdk.server.bodies import LeftError

__all__ = ["STALLED", "STREAMED", "put"]

STALLED = 60.0
"""Seconds for which a client may take nothing of a stream before it counts as gone."""
STREAMED = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the pieces back
)
"""The headers of a stream."""


async def put(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send a piece of a stream.

    Raises:
        LeftError: the client takes nothing any more, and holds a place.
    """
    try:
        async with asyncio.timeout(STALLED):
            await send({"type": "http.response.body", "body": data, "more_body": more})
        piece()
    except TimeoutError:
        raise LeftError from None
