"""Places in flight and the pace of requests: threads, loops, given-up waits, and both faces."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ConfigError, DeadlineExceededError
from aiaas_sdk.flow import Flow, adrive, drive, sleep
from aiaas_sdk.policies.gate import Gate
from tests.stopwatch import Stopwatch


def pass_through(gate: Gate, seconds: float) -> Flow[None]:
    place = yield from gate.enter()
    try:
        yield from sleep(seconds)
    finally:
        place.leave()


def free(gate: Gate) -> int:
    return len(gate._places._free)


def test_threads_and_loops_share_the_places_of_a_gate() -> None:
    gate, inside, most = Gate(3, "a place"), 0, 0
    guard = threading.Lock()

    def counted() -> Flow[None]:
        nonlocal inside, most
        place = yield from gate.enter()
        try:
            with guard:
                inside += 1
                most = max(most, inside)
            yield from sleep(0.002)
            with guard:
                inside -= 1
        finally:
            place.leave()

    async def many() -> None:
        await asyncio.gather(*(adrive(counted(), None) for _ in range(40)))  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(drive, counted(), None) for _ in range(80)]  # type: ignore[arg-type]
        loops = [pool.submit(asyncio.run, many()) for _ in range(2)]
        for future in [*plain, *loops]:
            future.result(20)
    assert most == 3
    assert free(gate) == 3


def test_who_came_first_goes_first() -> None:
    gate, order = Gate(1, "a place"), list[int]()

    async def one(number: int) -> None:
        def flow() -> Flow[None]:
            place = yield from gate.enter()
            order.append(number)
            yield from sleep(0.001)
            place.leave()

        await adrive(flow(), None)  # type: ignore[arg-type]

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(main())
    assert order == list(range(20))


def test_cancelled_waits_lose_no_place() -> None:
    """Thousands of cancellations at every moment, also when the turn has just come."""
    gate = Gate(4, "a place")

    async def main() -> None:
        for round_ in range(50):
            tasks = [asyncio.create_task(adrive(pass_through(gate, 0.0005), None)) for _ in range(60)]  # type: ignore[arg-type]
            await asyncio.sleep(0.0002 * (round_ % 10))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert free(gate) == 4


def test_a_wait_past_the_deadline_says_what_it_waited_for() -> None:
    gate = Gate(1, "a place")
    place = drive(gate.enter(), None)  # type: ignore[arg-type]
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match="waiting for a place"):
        drive(gate.enter(), None, time.monotonic() + 0.1)  # type: ignore[arg-type]
    assert watch.took() < 0.3
    place.leave()
    assert free(gate) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python, that a thread is running: it is what is tested
def test_a_child_process_has_all_places() -> None:
    gate = Gate(1, "a place")
    place = drive(gate.enter(), None)  # type: ignore[arg-type]
    child = os.fork()
    if child == 0:
        drive(gate.enter(), None, time.monotonic() + 5)  # type: ignore[arg-type]
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    place.leave()


def call_many(model: Any, face: str, count: int) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda n: model.predict([float(n)]).array.tolist(), range(count)))


def test_concurrency_bounds_what_the_endpoint_sees(endpoint: Any) -> None:
    endpoint.behave = lambda n: time.sleep(0.02)
    with aiaas.load(endpoint.address, limits=aiaas.Limits(concurrency=3)) as model:
        view = model.with_options(timeout=30)
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: (model, view)[n % 2].predict([float(n)]).array[0], range(40)))
    assert answers == [2.0 * n for n in range(40)]
    assert endpoint.most == 3


async def test_concurrency_bounds_awaited_calls_too(endpoint: Any) -> None:
    endpoint.behave = lambda n: time.sleep(0.02)
    async with aiaas.load_async(endpoint.address, limits=aiaas.Limits(concurrency=3)) as model:
        answers = await asyncio.gather(*(model.predict([float(n)]) for n in range(40)))
    assert [answer.array[0] for answer in answers] == [2.0 * n for n in range(40)]
    assert endpoint.most == 3
    assert sum(answer.timing.queue > 0.01 for answer in answers) > 10


def test_requests_start_so_far_apart(endpoint: Any, load: Any) -> None:
    with load(endpoint.address, limits=aiaas.Limits(requests_per_second=50)) as model:
        for n in range(6):
            model.predict([float(n)])
    moments = [moment for moment, _, _ in endpoint.seen]
    assert moments[5] - moments[0] >= 5 / 50 - 0.02


@pytest.mark.slow
def test_a_turn_that_comes_too_late_fails_at_once(endpoint: Any, load: Any) -> None:
    with load(endpoint.address, limits=aiaas.Limits(requests_per_second=0.5)) as model:
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            model.predict([1.0], timeout=1)
        assert watch.took() < 0.5


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"requests_per_second": 0.0}, {"connections": -1}])
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        aiaas.Limits(**wrong)


def test_a_policy_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="limits is a Retry"):
        aiaas.load("http://127.0.0.1:1/v2/models/m", limits=aiaas.Retry())  # type: ignore[arg-type]


def test_a_wait_for_a_place_is_bounded_also_without_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """R04."""
    monkeypatch.setattr("aiaas_sdk.policies.gate.LONGEST", 0.1)
    gate = Gate(1, "a place")
    place = drive(gate.enter(), None)  # type: ignore[arg-type]
    with pytest.raises(DeadlineExceededError, match="waiting for a place"):
        drive(gate.enter(), None)  # type: ignore[arg-type]
    place.leave()
