"""Flows are driven by hand here, then by both drivers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aiaas_sdk.errors import DeadlineExceededError
from aiaas_sdk.flow import Flow, Stream, adrive, drive, emit, run, sleep
from tests.stopwatch import Stopwatch

Drive = Callable[..., Any]
NOBODY: Any = None
"""No sender: these flows send nothing."""


def _adrive(flow: Flow[Any], sender: Any, deadline: float | None = None) -> Any:
    return asyncio.run(adrive(flow, sender, deadline))


@pytest.fixture(params=[drive, _adrive], ids=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Drive:
    return request.param  # type: ignore[no-any-return]


def test_a_flow_gets_the_result_of_its_effects(driver: Drive) -> None:
    def flow() -> Flow[int]:
        return (yield from run(lambda: 20)) + 1

    assert driver(flow(), NOBODY) == 21


def test_a_failure_is_thrown_into_the_flow(driver: Drive) -> None:
    def fail() -> int:
        raise ValueError("inside")

    def flow() -> Flow[str]:
        try:
            yield from run(fail)
        except ValueError as error:
            return f"caught {error}"
        return "lost"

    assert driver(flow(), NOBODY) == "caught inside"


def test_a_sleep_past_the_deadline_fails_at_once(driver: Drive) -> None:
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        driver(sleep(5), NOBODY, time.monotonic() + 1)
    assert watch.took() < 0.5


def test_work_past_the_deadline_fails_on_time_and_is_logged(driver: Drive, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1, "late") as thread:
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError, match="still computing"):
            driver(run(lambda: time.sleep(0.8), thread), NOBODY, time.monotonic() + 0.2)
        assert watch.took() < 0.6
    # of this thread: work that an earlier test had given up may end now, too
    assert [record.message for record in caplog.records if (record.threadName or "").startswith("late")] == [
        "abandoned work ended after its deadline; its result was dropped"
    ]


def test_a_cancelled_call_gives_cancelled_error_unchanged() -> None:
    async def main(thread: ThreadPoolExecutor) -> None:
        task = asyncio.create_task(adrive(run(lambda: time.sleep(0.3), thread), NOBODY))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ThreadPoolExecutor(1) as thread:
        asyncio.run(main(thread))


def test_a_stream_hands_out_items_and_keeps_the_result() -> None:
    def flow() -> Flow[str]:
        yield from emit("a")
        yield from emit("b")
        return "end"

    stream = Stream[str](flow(), NOBODY)
    assert list(stream) == ["a", "b"]
    assert stream.result == "end"
