"""Races of flows that send nothing, performed by both drivers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from aiaas_sdk.errors import DeadlineExceededError, ModelError
from aiaas_sdk.flow import Flow, adrive, drive, emit, run, sleep, wait
from aiaas_sdk.racing import race
from tests.stopwatch import Stopwatch, Took

NOBODY: Any = type("Nobody", (), {"awaited": None})
"""The sender of flows that send nothing."""
Drive = Callable[..., Any]


def _drive(flow: Flow[Any], deadline: float | None = None) -> Any:
    return drive(flow, NOBODY, deadline)


def _adrive(flow: Flow[Any], deadline: float | None = None) -> Any:
    return asyncio.run(adrive(flow, NOBODY, deadline))


def _drive_in_a_loop(flow: Flow[Any], deadline: float | None = None) -> Any:
    """As plain Python in a notebook."""

    async def cell() -> Any:
        return drive(flow, NOBODY, deadline)

    return asyncio.run(cell())


@pytest.fixture(params=[_drive, _adrive, _drive_in_a_loop], ids=["sync", "async", "sync in a loop"])
def driven(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """A driver, which leaves no thread behind."""
    yield request.param
    assert not [thread for thread in threading.enumerate() if thread.name == "aiaas-race"]


def slept(seconds: float, result: Any = None, failure: Exception | None = None) -> Flow[Any]:
    yield from sleep(seconds)
    if failure is not None:
        raise failure
    return result


def took(watch: Stopwatch, seconds: float) -> bool:
    return seconds - 0.01 < watch.took() < seconds + 0.25


def test_the_first_wins_where_it_is_quick_and_the_second_never_starts(driven: Drive) -> None:
    started = []

    def second() -> Flow[str]:
        started.append(True)
        yield from sleep(0)
        return "second"

    flows = [slept(0.02, "first"), second()]
    assert driven(race(flows, 0.5)) == (0, "first")
    assert not started
    assert all(flow.gi_frame is None for flow in flows)


def test_the_second_wins_while_the_first_is_slow(driven: Drive) -> None:
    watch = Stopwatch()
    assert driven(race([slept(9), slept(0.1, "second")], 0.1)) == (1, "second")
    assert took(watch, 0.2)


def test_what_the_first_began_goes_on_when_the_second_starts(driven: Drive) -> None:
    watch = Stopwatch()
    assert driven(race([slept(0.4, "first"), slept(9)], 0.1)) == (0, "first")
    assert took(watch, 0.4)


def test_a_delay_of_nothing(driven: Drive) -> None:
    assert driven(race([slept(9), slept(0.01, "second")], 0)) == (1, "second")


def test_each_starts_at_its_own_time_also_after_one_before_it_failed(driven: Drive) -> None:
    watch = Stopwatch()
    started: list[Took] = []

    def third() -> Flow[str]:
        started.append(watch.took())
        yield from sleep(0.05)
        return "third"

    flows = [slept(9), slept(0.0, failure=ModelError("early")), third()]
    assert driven(race(flows, 0.15)) == (2, "third")
    assert 0.29 < started[0] < 0.5


def test_the_others_go_on_when_the_first_fails(driven: Drive) -> None:
    watch = Stopwatch()
    flows = [slept(0.2, failure=ModelError("first")), slept(0.3, "second"), slept(9)]
    assert driven(race(flows, 0.15)) == (1, "second")
    assert took(watch, 0.45)


def test_a_failure_before_the_second_starts_is_the_race_s(driven: Drive) -> None:
    watch = Stopwatch()
    with pytest.raises(ModelError, match="first"):
        driven(race([slept(0.05, failure=ModelError("first")), slept(0.01)], 0.5))
    assert took(watch, 0.05)


def test_where_all_fail_the_first_one_s_failure_is_the_race_s(driven: Drive) -> None:
    for first, second in ((0.2, 0.0), (0.1, 0.2)):
        with pytest.raises(ModelError, match="first"):
            driven(race([slept(first, failure=ModelError("first")), slept(second, failure=ModelError("2"))], 0.05))


def test_the_deadline_holds_for_all_of_them(driven: Drive) -> None:
    never: Future[None] = Future()
    for delay in (0.1, 0.7):
        watch = Stopwatch()
        flows = [wait(never, "a first thing"), wait(never, "a second thing")]
        with pytest.raises(DeadlineExceededError, match="waiting for a first thing"):
            driven(race(flows, delay), time.monotonic() + 0.3)
        assert took(watch, 0.3)


def test_a_wait_with_a_limit_of_its_own_keeps_it(driven: Drive) -> None:
    never: Future[None] = Future()
    for limit in (0.1, 0.4):  # before and after the second starts
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError, match="its turn"):
            driven(race([wait(never, "its turn", limit), slept(0, failure=ModelError("2"))], 0.3))
        assert took(watch, limit)


def test_a_wait_ends_whenever_its_future_is_set(driven: Drive) -> None:
    for after in (0.05, 0.3):  # before and after the second starts
        future: Future[str] = Future()
        timer = threading.Timer(after, future.set_result, ("first",))
        watch = Stopwatch()
        timer.start()
        assert driven(race([wait(future, "it"), slept(9)], 0.15)) == (0, "first")
        assert took(watch, after)
        timer.join()


def test_a_failure_reaches_the_flow_wherever_it_is_performed(driven: Drive) -> None:
    never: Future[None] = Future()

    def patient() -> Flow[list[str]]:
        heard = []
        for limit in (0.05, 0.2):
            try:
                yield from wait(never, "nothing", limit)
            except DeadlineExceededError:
                heard.append(f"{limit}")
        return heard

    assert driven(race([patient(), slept(9)], 0.1)) == (0, ["0.05", "0.2"])


def test_the_losers_clean_up_before_the_race_is_over(driven: Drive) -> None:
    cleaned = []

    def loser(name: str) -> Flow[None]:
        try:
            yield from sleep(9)
        finally:
            cleaned.append(name)

    assert driven(race([loser("first"), slept(0.2, "second"), loser("third")], 0.05)) == (1, "second")
    assert sorted(cleaned) == ["first", "third"]


def test_work_in_a_thread_and_races_in_races(driven: Drive) -> None:
    def inner(result: str) -> Flow[Any]:
        return race([slept(9), run(lambda: result, thread)], 0.05)

    with ThreadPoolExecutor(2) as thread:
        assert driven(race([inner("inner"), slept(9)], 0.5)) == (0, (1, "inner"))
        assert driven(race([slept(9), inner("inner")], 0.05)) == (1, (1, "inner"))


def test_a_flow_that_emits_can_t_race(driven: Drive) -> None:
    with pytest.raises(TypeError, match="emitted"):
        driven(race([emit("item"), slept(9)], 0.05))


def test_the_loop_that_the_thread_has_for_later_stays() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert _drive(race([slept(9), slept(0, "second")], 0.01)) == (1, "second")
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def test_a_cancellation_ends_all_of_them_and_is_not_taken_for_a_defeat() -> None:
    """Also where it comes at the moment at which the second one wins."""
    started, ended = [], []

    def flow(seconds: float) -> Flow[str]:
        started.append(seconds)
        try:
            yield from sleep(seconds)
        finally:
            ended.append(seconds)
        return "won"

    for press in (0.02, 0.1, *[0.15 + 0.001 * n for n in range(-5, 6)]):
        started.clear()
        ended.clear()
        watch = Stopwatch()
        task = asyncio.ensure_future(adrive(race([flow(9), flow(0.1)], 0.05), NOBODY))
        await asyncio.sleep(press)
        pressed = watch.took().seconds
        cancelled = task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or not cancelled or task.result() == (1, "won")
        assert task.cancelled() or pressed > 0.14
        assert sorted(started) == sorted(ended)
        assert len(started) == 2 or pressed < 0.1
        assert len(started) == 1 or pressed > 0.05


async def test_no_task_outlives_the_race() -> None:
    before = asyncio.all_tasks()
    for seconds in (0.05, 0.2):
        assert (await adrive(race([slept(seconds), slept(9), slept(9)], 0.03), NOBODY))[0] == 0
        assert asyncio.all_tasks() <= before


async def test_a_defeat_of_the_first_leaves_no_cancellation_behind() -> None:
    task = asyncio.current_task()
    assert task is not None
    for _ in range(20):
        assert await adrive(race([slept(9), slept(0, "second")], 0.001), NOBODY) == (1, "second")
        assert task.cancelling() == 0
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await adrive(race([slept(9), slept(9)], 0.001), NOBODY)
    assert task.cancelling() == 0
