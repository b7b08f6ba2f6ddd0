"""The queue before a model: who shares a pass, who gets which answer, and what one request may do to another."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aiaas_sdk as aiaas
from aiaas_sdk.near import near
from aiaas_sdk.server.batcher import Batcher
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.tensors import Tensor
from tests.server.lab import PASSES
from tests.stopwatch import Stopwatch, Took
from tests.waiting import until


@pytest.fixture(autouse=True)
def _no_passes_yet() -> None:
    PASSES.clear()


def rows(*identities: float, mood: float = 0.0) -> dict[str, Tensor]:
    """A request whose rows say who they are."""
    return {"x": Tensor("FP32", np.array([[one, mood] for one in identities], np.float32).reshape(-1, 2))}


Asks = Callable[[Batcher], Awaitable[Any]]


def batching(address: str, asks: Asks, *, max_rows: int = 64, max_delay: float = 0.0) -> Any:
    """What `asks` gives, of a batcher for a model that is open."""

    async def run() -> Any:
        async with aiaas.load_async(address) as model:
            here = near(model)
            assert here is not None
            batcher = Batcher(here, max_rows=max_rows, max_delay=max_delay)
            found = await asks(batcher)
            assert batcher.waiting == 0
            return found

    return asyncio.run(run())


async def held(batcher: Batcher, seconds: float = 0.1) -> asyncio.Task[Any]:
    """A request that keeps the model busy; those asked now gather behind it."""
    task = asyncio.ensure_future(batcher.predict(rows(999, mood=seconds), None, None))
    while not PASSES or PASSES[-1][0, 0] != 999:
        await asyncio.sleep(0.001)
    return task


async def together(batcher: Batcher, *requests: Any, outputs: Sequence[str] | None = None) -> list[Any]:
    """The answers, or errors, to requests that came while the model was busy; 0.1 s each at most."""
    busy = await held(batcher)
    tasks = [asyncio.ensure_future(batcher.predict(inputs, outputs, None)) for inputs in requests]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await busy
    return found


def shapes() -> list[int]:
    """The rows of each pass after the first, which held the others up."""
    return [len(x) for x in PASSES[1:]]


# ---------------------------------------------------------------- sharing
def test_requests_that_wait_share_a_pass_and_each_gets_its_own_rows(lab: str) -> None:
    asked = [rows(1), rows(2, 3), rows(4), rows(), rows(5, 6, 7)]
    found = batching(lab, lambda batcher: together(batcher, *asked))
    assert shapes() == [7]
    for request, answer in zip(asked, found, strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * request["x"].array)
        assert answer["n"].tolist() == [7] * len(request["x"].array)
        assert answer.tensors["y"].array is answer["y"]


def test_answers_are_views_of_one_memory_and_one_request_alone_isnt_copied(lab: str) -> None:
    async def asks(batcher: Batcher) -> Any:
        alone = rows(1, 2)
        await batcher.predict(alone, None, None)
        assert PASSES[0] is alone["x"].array
        PASSES.clear()
        return await together(batcher, rows(3), rows(4))

    first, second = batching(lab, asks)
    assert first["y"].base is not None
    assert first["y"].base is second["y"].base


def test_an_idle_model_runs_a_request_at_once_and_those_of_one_turn_together(lab: str) -> None:
    async def asks(batcher: Batcher) -> None:
        watch = Stopwatch()
        await batcher.predict(rows(1), None, None)
        assert watch.took() < 0.2  # not the delay
        await asyncio.gather(*(batcher.predict(rows(n), None, None) for n in range(9)))

    batching(lab, asks, max_delay=0.5)
    assert [len(x) for x in PASSES] == [1, 9]


def test_where_requests_come_together_a_pass_begins_when_no_more_come(lab: str) -> None:
    async def asks(batcher: Batcher) -> None:
        await together(batcher, rows(1), rows(2))
        PASSES.clear()
        tasks = []
        for number in range(6):  # one with each turn of the loop
            tasks.append(asyncio.ensure_future(batcher.predict(rows(number), None, None)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    batching(lab, asks)
    assert [len(x) for x in PASSES] == [6]


def test_under_load_a_pass_waits_for_others_but_not_longer_than_it_may(lab: str) -> None:
    async def asks(batcher: Batcher) -> Took:
        await together(batcher, rows(1), rows(2))
        late = asyncio.ensure_future(batcher.predict(rows(3), None, None))
        await asyncio.sleep(0.05)
        await asyncio.gather(late, batcher.predict(rows(4), None, None))
        assert len(PASSES[-1]) == 2  # the second one had half of the delay to come
        watch = Stopwatch()
        await batcher.predict(rows(5), None, None)
        return watch.took()

    waited = batching(lab, asks, max_delay=0.3)
    assert 0.25 < waited < 0.8


def test_a_full_pass_doesnt_wait(lab: str) -> None:
    async def asks(batcher: Batcher) -> Took:
        await together(batcher, rows(1), rows(2))
        watch = Stopwatch()
        first = asyncio.ensure_future(batcher.predict(rows(3), None, None))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher.predict(rows(4, 5, 6), None, None))
        return watch.took()

    assert batching(lab, asks, max_rows=4, max_delay=0.4) < 0.3


def test_no_more_rows_than_allowed_and_a_larger_request_is_left_whole(lab: str) -> None:
    asked = [rows(1, 2), rows(3), rows(4, 5), rows(*range(10)), rows(6)]
    found = batching(lab, lambda batcher: together(batcher, *asked), max_rows=4)
    assert shapes() == [4, 2, 10]
    for request, answer in zip(asked, found, strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * request["x"].array)


def test_the_models_own_limit_counts_too(lab: str) -> None:
    batching(lab + "three", lambda batcher: together(batcher, *(rows(n) for n in range(5))))
    assert shapes() == [3, 2]


def test_one_row_means_no_sharing(lab: str) -> None:
    batching(lab, lambda batcher: together(batcher, rows(1), rows(2)), max_rows=1)
    assert shapes() == [1, 1]


def test_a_model_whose_first_axis_isnt_rows_is_asked_one_by_one(lab: str) -> None:
    found = batching(lab + "fixed", lambda batcher: together(batcher, rows(1), rows(2)))
    assert [answer["y"][0, 0] for answer in found] == [2, 4]
    assert shapes() == [1, 1]


def test_requests_of_another_shape_type_or_wish_go_apart(lab: str) -> None:
    wide = {"x": Tensor("FP32", np.ones((1, 5), np.float32))}
    exact = {"x": Tensor("FP64", np.ones((1, 2)))}
    other = {"z": Tensor("FP32", np.ones((1, 2), np.float32))}
    flat = {"x": Tensor("FP32", np.float32(1).reshape(()))}

    async def asks(batcher: Batcher) -> list[Any]:
        busy = await held(batcher)
        wishes: list[tuple[Any, Any]] = [
            *[(request, None) for request in (rows(1), wide, exact, other, flat, rows(2))],
            *[(rows(3), ["y"]), (rows(4), ["n", "y"]), (rows(5), ["y"])],
        ]
        tasks = [asyncio.ensure_future(batcher.predict(inputs, outputs, None)) for inputs, outputs in wishes]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await busy
        return found

    one, five, *bad, two, three, four, fifth = batching(lab + "free", asks)
    assert shapes() == [2, 1, 2, 1]
    assert [answer["y"][0, 0] for answer in (one, five, two, three, four, fifth)] == [2, 2, 4, 6, 8, 10]
    assert all(isinstance(error, aiaas.InputError) for error in bad)
    assert (list(three), list(four), list(fifth)) == (["y"], ["n", "y"], ["y"])


def test_each_answer_says_what_it_was_for_it(lab: str) -> None:
    watch = Stopwatch()
    first, second = batching(lab, lambda batcher: together(batcher, rows(1, mood=0.05), rows(2, 3, 4)))
    assert (first.usage.rows, second.usage.rows) == (1, 3)
    for answer in (first, second):
        assert answer.timing.queue > 0.05  # it waited for the pass of 0.1 s
        assert 0.05 <= watch.took(answer.timing.compute) < 0.1
        assert answer.timing.total >= answer.timing.queue + answer.timing.compute
        assert (answer.model, answer.version, answer.backend) == ("lab", "1", "lab")


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_together_nobody_gets_anothers_rows(lab: str, data: Any) -> None:
    asked = data.draw(
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.0, 0.0, 0.001, -1.0, -3.0, -4.0])), max_size=20)
    )
    pauses = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.0005]), min_size=len(asked), max_size=len(asked)))
    delay, most = data.draw(st.sampled_from([0.0, 0.002])), data.draw(st.integers(1, 12))

    async def asks(batcher: Batcher) -> Any:
        tasks, place = [], 1
        for (count, mood), pause in zip(asked, pauses, strict=True):
            mine = rows(*range(place, place + count), mood=mood)
            place += count
            tasks.append((mine, mood, asyncio.ensure_future(batcher.predict(mine, None, None))))
            await asyncio.sleep(pause)
        await asyncio.gather(*(task for _, _, task in tasks), return_exceptions=True)
        return tasks

    for mine, mood, task in batching(lab, asks, max_rows=most, max_delay=delay):
        if mood >= 0 or not len(mine["x"].array):
            np.testing.assert_array_equal(task.result()["y"], 2 * mine["x"].array)
        elif mood == -4:  # alone it may: its answer is its own
            np.testing.assert_array_equal(task.result()["y"], 2 * mine["x"].array[:-1])
        else:
            assert isinstance(task.exception(), MemoryError if mood == -3 else aiaas.ModelError)


# ---------------------------------------------------------------- one bad request
@pytest.mark.parametrize(
    ("mood", "error"), [(-1, aiaas.ModelError), (-2, aiaas.ModelError), (-3, MemoryError), (-5, aiaas.ModelError)]
)
def test_a_request_that_fails_fails_alone(lab: str, mood: float, error: type[Exception]) -> None:
    asked = [rows(1), rows(2, mood=mood), rows(3)]
    first, bad, third = batching(lab, lambda batcher: together(batcher, *asked))
    assert shapes() == [3, 1, 1, 1]  # each once more, alone
    assert (first["y"][0, 0], third["y"][0, 0]) == (2, 6)
    assert isinstance(bad, error)


def test_a_model_that_leaves_the_process_has_failed_and_its_caller_hasnt(lab: str, load: Any) -> None:
    with load(lab) as model, pytest.raises(aiaas.ModelError, match="SystemExit: gone"):
        model.predict(rows(1, mood=-2)["x"].array)


def test_who_asked_first_is_tried_first_again(lab: str) -> None:
    async def asks(batcher: Batcher) -> None:
        busy = await held(batcher)
        tasks = [asyncio.ensure_future(batcher.predict(rows(n, mood=-1), None, None)) for n in (1, 2)]
        await busy
        tasks.append(asyncio.ensure_future(batcher.predict(rows(3), None, None)))
        await asyncio.gather(*tasks, return_exceptions=True)

    batching(lab, asks)
    assert [x[0, 0] for x in PASSES[2:]] == [1, 2, 3]


def test_rows_that_get_lost_stop_the_sharing_and_nobody_gets_anothers(lab: str, caplog: Any) -> None:
    async def asks(batcher: Batcher) -> Any:
        found = await together(batcher, rows(1), rows(2, 2, mood=-4), rows(3))
        PASSES.clear()
        return found + await together(batcher, rows(4), rows(5))

    with caplog.at_level(logging.WARNING, "aiaas_sdk.server"):
        first, _, third, fourth, fifth = batching(lab, asks)
    assert [answer["y"][0, 0] for answer in (first, third, fourth, fifth)] == [2, 6, 8, 10]
    assert shapes() == [1, 1]
    assert "shares no pass any more" in caplog.text


def test_a_batcher_goes_on_after_what_cant_be_assembled(lab: str) -> None:
    """R52: an exception in the sizing step killed the batcher, and every later request hung."""

    class Odd(np.ndarray[Any, Any]):
        pass

    odd = {"x": Tensor("FP32", np.zeros((2, 2), np.float32).view(Odd))}
    nothing: dict[str, Tensor] = {}
    uneven = {**rows(1), "mask": Tensor("FP32", np.ones((3, 2), np.float32))}
    text = {"x": Tensor("BYTES", np.array([[b"a", b"b"]], object))}
    found = batching(lab, lambda batcher: together(batcher, odd, nothing, uneven, text, rows(7)))
    assert all(isinstance(error, aiaas.AiaasError) for error in found[1:4])
    assert found[4]["y"][0, 0] == 14


def kill(name: str) -> threading.Thread:
    """Have a thread raise SystemExit as soon as it is given something to do, which gets lost."""
    thread = next(one for one in reversed(threading.enumerate()) if one.name == name)
    until(lambda: "task" not in sys._current_frames()[thread.ident or 0].f_locals)  # it has ended what it had
    time.sleep(0.02)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    return thread


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pytest sees it die, too
def test_a_thread_that_dies_is_noticed_and_readiness_says_so_until_the_model_is_open_again(
    lab: str, serving: Any
) -> None:
    client = serving(f"lab={lab}")
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [4, 0]}]}
    assert client("POST", "/v2/models/lab/infer", asked).status == 200
    thread = kill("aiaas-lab-1")
    answer = client("POST", "/v2/models/lab/infer", asked)
    assert answer.status == 500
    assert "died" in answer.error
    assert not thread.is_alive()
    assert client("GET", "/v2/models/lab/ready").status == 503
    assert client("GET", "/v2/health/ready").status == 503
    end = time.monotonic() + 10
    while client("GET", "/v2/health/ready").status == 503 and time.monotonic() < end:
        time.sleep(0.05)
    assert client("POST", "/v2/models/lab/infer", asked).document["outputs"][0]["data"] == [8, 0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_those_who_shared_the_pass_of_a_thread_that_died_are_tried_alone(lab: str) -> None:
    async def asks(batcher: Batcher) -> Any:
        await batcher.predict(rows(0), None, None)
        kill("aiaas-lab-1")
        return await asyncio.gather(*(batcher.predict(rows(n), None, None) for n in (1, 2)))

    assert [answer["y"][0, 0] for answer in batching(lab, asks)] == [2, 4]
    assert [len(x) for x in PASSES] == [1, 1, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_without_a_server_says_that_its_thread_died_once(lab: str) -> None:
    async def run() -> None:
        async with aiaas.load_async(lab) as model:
            x = rows(1)["x"].array
            await model.predict(x)
            kill("aiaas-lab-1")
            with pytest.raises(aiaas.DeadlineExceededError):
                await model.predict(x, timeout=0.2)
            assert not await model.ready()
            assert await model.ready()
            assert (await model.predict(x))["y"][0, 0] == 2

    asyncio.run(run())


# ---------------------------------------------------------------- time
def test_who_waits_past_his_time_is_never_run(lab: str) -> None:
    async def asks(batcher: Batcher) -> Any:
        busy = await held(batcher, 0.3)
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError, match="wasn't run"):
            await batcher.predict(rows(1), None, 0.1)
        assert watch.took() < 0.25
        return await asyncio.gather(busy, batcher.predict(rows(2), None, 5.0))

    batching(lab, asks)
    assert [x[0, 0] for x in PASSES] == [999, 2]


def test_what_cant_be_in_time_is_refused_at_once(lab: str) -> None:
    async def asks(batcher: Batcher) -> None:
        await batcher.predict(rows(0, mood=0.2), None, None)  # so long does a pass take
        tasks = [asyncio.ensure_future(batcher.predict(rows(n, mood=0.2), None, None)) for n in (1, 2)]
        await asyncio.sleep(0.01)
        watch = Stopwatch()
        with pytest.raises(RefusedError, match="overloaded") as refused:
            await batcher.predict(rows(3), None, 0.1)
        assert watch.took() < 0.05
        assert refused.value.status == 503
        assert 0.2 < (refused.value.retry_after or 0) < 1
        await batcher.predict(rows(4), None, 5.0)  # that one can wait
        await asyncio.gather(*tasks)
        with pytest.raises(aiaas.DeadlineExceededError):  # it is idle: nobody knows better, so it is tried
            await batcher.predict(rows(5, mood=0.2), None, 0.05)

    batching(lab, asks, max_rows=1)
    assert [x[0, 0] for x in PASSES] == [0, 1, 2, 4, 5]


def test_who_has_gone_is_never_run_and_harms_nobody(lab: str) -> None:
    """R36: requests that were given up poisoned later batches."""

    async def asks(batcher: Batcher) -> Any:
        busy = await held(batcher)
        tasks = [asyncio.ensure_future(batcher.predict(rows(n), None, None)) for n in range(6)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await busy
        running = await held(batcher)
        running.cancel()  # in the middle of its pass
        return [*found, await batcher.predict(rows(7), None, None)]

    found = batching(lab, asks)
    assert PASSES[1][:, 0].tolist() == [1, 3, 5]
    assert [answer["y"][0, 0] for answer in found[1::2]] == [2, 6, 10]
    assert found[-1]["y"][0, 0] == 14
    assert all(isinstance(error, asyncio.CancelledError) for error in found[:6:2])


def test_who_gives_up_while_it_computes_leaves_the_others_their_answers(lab: str) -> None:
    async def asks(batcher: Batcher) -> Any:
        busy = await held(batcher, 0.05)
        hasty = asyncio.ensure_future(batcher.predict(rows(1), None, 0.15))
        patient = asyncio.ensure_future(batcher.predict(rows(2, mood=0.2), None, None))
        await asyncio.gather(busy, hasty, return_exceptions=True)
        with pytest.raises(aiaas.DeadlineExceededError, match="still computing"):
            hasty.result()
        return await patient

    assert batching(lab, asks)["y"][0, 0] == 4
    assert shapes() == [2]


def test_two_slots_are_two_passes_at_once(lab: str) -> None:
    async def run() -> Took:
        async with aiaas.load_async(lab, concurrency=2) as model:
            here = near(model)
            assert here is not None
            batcher = Batcher(here, max_rows=1, max_delay=0.0)
            watch = Stopwatch()
            await asyncio.gather(*(batcher.predict(rows(n, mood=0.2), None, None) for n in range(2)))
            return watch.took()

    assert asyncio.run(run()) < 0.38


def test_a_model_that_was_closed_says_so(lab: str) -> None:
    async def run() -> None:
        model = aiaas.load_async(lab)
        await model.info()
        here = near(model)
        assert here is not None
        batcher = Batcher(here, max_rows=8, max_delay=0.0)
        await model.aclose()
        with pytest.raises(aiaas.ClosedError):
            await asyncio.wait_for(batcher.predict(rows(1), None, None), 5)

    asyncio.run(run())
