"""Event loops, threads, processes: rows R26 to R37 of the field cases.

R30 (leaving with work half done) is X05 in test_cancelling.py; the rest of R30 and R31, which concern models in this
process, are in tests/test_manners.py (`leaving`, `other processes`).
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing.faults import FaultServer, slow, stall, status
from tests.stopwatch import Stopwatch
from tests.waiting import reached, until

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_r26_async_models_that_nobody_closes_leave_neither_words_nor_sockets(
    server: FaultServer, hung_up: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def use() -> None:
        for _ in range(20):
            model = aiaas.load_async(server.address, timeout=5)
            await model.predict(X)

    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    for connected in server.connections:
        hung_up(connected, 2)
    assert len(server.connections) == 100
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("routed", [False, True])
def test_r28_many_threads_of_one_model_get_their_own_answers(server: FaultServer, routed: bool) -> None:
    wrong: list[float] = []
    with FaultServer() as other:
        address = [server.address, other.address] if routed else server.address
        # so many attempts, for one call may meet several of the faults; the threads share them
        with aiaas.load(address, timeout=20, breaker=None, retry=aiaas.Retry(attempts=9, wait=0.01)) as model:
            # every ninth request fails, somewhere
            server.on("predict", *([slow(0)] * 8 + [status(503)]) * 50)

            def work(name: int) -> None:
                for turn in range(50):
                    number = 1000.0 * name + turn
                    if not (model.predict(X + number).array == 2 * (X + number)).all():
                        wrong.append(number)

            threads = [threading.Thread(target=work, args=(name,)) for name in range(32)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert not wrong
    assert len({seen.id for seen in server.of("predict")}) == 1600


def test_r31_loading_and_calling_leave_the_way_processes_start_alone(case: Any) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    case.passes()
    assert multiprocessing.get_start_method(allow_none=True) == before


@pytest.mark.parametrize("limit", ["concurrency", "connections"])
async def test_r33_cancelling_twice_in_a_body_costs_no_place(server: FaultServer, limit: str) -> None:
    limits = aiaas.Limits(**{limit: 10})
    async with aiaas.load_async(server.address, timeout=20, limits=limits) as model:
        server.on("predict", *[stall("body")] * 12)
        for number in range(12):
            task = asyncio.create_task(model.predict(X))
            await reached(lambda number=number: len(server.of("predict")) > number)
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        watch = Stopwatch()
        assert (await model.predict(X)).attempts == 1
        assert watch.took() < 1


@pytest.mark.parametrize("where", ["endpoint", "route", "here"])
async def test_r34_a_cancelled_task_group_sees_its_own_error_and_nothing_else(server: FaultServer, where: str) -> None:
    with FaultServer() as other:
        address: Any = {"endpoint": server.address, "here": "echo:?x=FP32[-1,3]"}.get(
            where, [server.address, other.address]
        )
        breaker = aiaas.Breaker(minimum=1, failures=0.01)
        async with aiaas.load_async(address, timeout=20, breaker=breaker) as model:
            server.on("predict", *[stall()] * 2)
            seen: list[BaseException] = []
            with pytest.raises(ExceptionGroup) as caught:
                await _in_a_group(model, seen, lambda: where == "here" or len(server.of("predict")) == 2)
            assert [type(error) for error in caught.value.exceptions] == [KeyError]
            assert [type(error) for error in seen] == [asyncio.CancelledError] * 2
            assert (await model.predict(X)).attempts == (0 if where == "here" else 1)
            assert not other.of("predict")


async def _in_a_group(model: Any, seen: list[BaseException], when: Callable[[], Any]) -> None:
    """Two tasks that call the model, and one that fails meanwhile, a little after something is so."""

    async def ask() -> None:
        try:
            for _ in range(100_000):
                await model.predict(X)
        except BaseException as error:
            seen.append(error)
            raise

    async def fail() -> None:
        await reached(when)
        await asyncio.sleep(0.1)
        raise KeyError("the group's own")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask()), group.create_task(ask())]
        group.create_task(fail())
    assert all(task.cancelled() for task in tasks)


@pytest.mark.slow
async def test_r36_requests_that_clients_gave_up_do_not_poison_later_ones(server: FaultServer) -> None:
    server.on("predict", then=slow(0.05))
    with serve_in_thread([f"far={server.address}"]) as url:
        async with aiaas.load_async(f"{url}/v2/models/far", timeout=20, retry=None, breaker=None) as model:
            hasty = await asyncio.gather(*(model.predict(X, timeout=0.03) for _ in range(50)), return_exceptions=True)
            assert {type(error) for error in hasty} <= {aiaas.DeadlineExceededError, aiaas.UnavailableError}
            patient = model.with_options(retry=aiaas.Retry(attempts=20, wait=0.1, max_wait=0.3))
            answers = await asyncio.gather(*(patient.predict(X + number) for number in range(50)))
            for number, prediction in enumerate(answers):
                assert (prediction.array == 2 * (X + number)).all()
            await patient.aclose()


async def test_r37_one_task_leaves_while_another_is_in_flight(server: FaultServer) -> None:
    model = aiaas.load_async(server.address, timeout=5)
    server.on("predict", slow(0.4))

    async def leave() -> None:
        async with model:
            await asyncio.sleep(0.1)

    async def stay() -> Any:
        return await model.predict(X)

    _, outcome = await asyncio.gather(leave(), stay(), return_exceptions=True)
    if isinstance(outcome, BaseException):
        assert type(outcome) is aiaas.ClosedError
        assert "closed" in str(outcome)
    else:
        assert (outcome.array == 2 * X).all()
    with pytest.raises(aiaas.ClosedError):
        await model.predict(X)
    await model.aclose()
    await model.aclose()


def test_r37_one_thread_closes_while_another_is_in_flight(server: FaultServer) -> None:
    outcomes: list[Any] = []
    model = aiaas.load(server.address, timeout=5)
    model.info()
    server.on("predict", slow(0.4))
    thread = threading.Thread(target=lambda: outcomes.append(model.predict(X).array))
    thread.start()
    until(lambda: server.of("predict"))
    model.close()
    model.close()
    thread.join()
    assert (outcomes[0] == 2 * X).all()
    with pytest.raises(aiaas.ClosedError):
        model.predict(X)
