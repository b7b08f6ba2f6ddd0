"""While requests are refused, the event loop's thread doesn't interrupt the models'."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiaas_sdk.server import yielding
from tests.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has such a policy")


def in_a_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(60)


def test_it_yields_until_nobody_has_been_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "_SPAN", 0.2)

    async def refuse() -> None:
        for _ in range(3):
            yielding.yield_to_models()
            assert os.sched_getscheduler(0) == os.SCHED_BATCH
        async with asyncio.timeout(20):
            while os.sched_getscheduler(0) != os.SCHED_OTHER:
                await asyncio.sleep(0.01)
        yielding.yield_to_models()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH

    in_a_thread(lambda: asyncio.run(refuse()))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "the other threads"


def test_a_policy_that_somebody_chose_stays() -> None:
    async def refuse() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        yielding.yield_to_models()
        assert os.sched_getscheduler(0) == os.SCHED_IDLE

    in_a_thread(lambda: asyncio.run(refuse()))


def test_without_a_loop_nothing_changes() -> None:
    found: list[int] = []

    def refuse() -> None:
        yielding.yield_to_models()
        found.append(os.sched_getscheduler(0))

    threading.Thread(target=refuse).start()
    assert until(lambda: found) == [os.SCHED_OTHER]
