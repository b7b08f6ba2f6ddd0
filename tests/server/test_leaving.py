"""Clients that go away while their requests wait: each request's own end, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiaas_sdk.server.bodies import LeftError
from aiaas_sdk.server.leaving import PATIENCE, Attended


class Visitor:
    """A client that goes after so many seconds; ASGI's `receive` of him."""

    def __init__(self, after: float) -> None:
        self._after, self.watched = after, False

    async def receive(self) -> dict[str, Any]:
        self.watched = True
        await asyncio.sleep(self._after)
        return {"type": "http.disconnect"}

    async def asks(self, seconds: float) -> float:
        """Work that takes so long; the seconds until it was over, or called off."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            with Attended(self.receive):
                await asyncio.sleep(seconds)
        except LeftError:
            return loop.time() - begun
        raise AssertionError("it was done to its end")


def test_who_leaves_has_his_own_work_called_off_whoever_came_before() -> None:
    async def staggered() -> list[Any]:
        visitors = [Visitor(0.1), Visitor(60), Visitor(0.0), Visitor(0.2)]
        tasks = []
        for visitor, work in zip(visitors, (60, 0.3, 60, 60), strict=True):
            tasks.append(asyncio.ensure_future(visitor.asks(work)))
            await asyncio.sleep(PATIENCE / 2)
        return await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(2):  # each with a loop of its own, in one thread
        found = asyncio.run(asyncio.wait_for(staggered(), 30))
        assert isinstance(found[1], AssertionError)
        assert all(PATIENCE - 0.01 <= seconds < 20 for place, seconds in enumerate(found) if place != 1), found


def test_nobody_looks_after_short_work_and_the_next_long_one_is_watched() -> None:
    async def short() -> None:
        for _ in range(3):
            quick = Visitor(60)
            with pytest.raises(AssertionError, match="to its end"):
                await quick.asks(0)
            await asyncio.sleep(2 * PATIENCE)
            assert not quick.watched
            assert await Visitor(0).asks(60) < 20

    asyncio.run(asyncio.wait_for(short(), 30))
