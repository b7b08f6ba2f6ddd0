"""`map` over an endpoint: how much is in flight, what a peer that pushes back does to it, and how it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from tests.stopwatch import Stopwatch
from tests.waiting import reached

ROOT = Path(__file__).parent.parent.parent


def rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32).reshape(count, 1)


def answers(found: Any) -> list[float]:
    return [answer["y"].item() for answer in found]


def doubled(count: int) -> list[float]:
    return [2.0 * row for row in range(count)]


# ---------------------------------------------------------------- how much is in flight
@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_a_number_that_was_given_is_kept(load: Any, peer: Any, concurrency: int) -> None:
    peer.delay = 0.005
    assert answers(load(peer.url).map(rows(120), batch_size=2, concurrency=concurrency)) == doubled(120)
    assert 0.5 * concurrency <= max(peer.flying) <= concurrency
    assert answers(load(peer.url, concurrency=concurrency).map(rows(120), batch_size=2)) == doubled(120)
    assert max(peer.flying) <= concurrency


def test_without_one_there_are_four_and_more_where_that_helps(load: Any, peer: Any) -> None:
    peer.delay = 0.02
    assert answers(load(peer.url).map(rows(300), batch_size=1)) == doubled(300)
    assert max(peer.flying[:4]) <= 4
    assert 8 <= max(peer.flying) <= 64


def test_the_limit_of_the_endpoint_is_not_passed(load: Any, peer: Any) -> None:
    peer.delay = 0.01
    model = load(peer.url, limits=aiaas.Limits(concurrency=2))
    assert answers(model.map(rows(60), batch_size=1)) == doubled(60)
    assert max(peer.flying) <= 2


def test_a_model_here_is_asked_one_by_one(load: Any) -> None:
    model = load("echo:?x=FP32[-1,1]")
    assert [answer["x"].item() for answer in model.map(rows(10), batch_size=1)] == [float(n) for n in range(10)]


# ---------------------------------------------------------------- a peer that pushes back
@pytest.mark.slow
@pytest.mark.parametrize("retry", [aiaas.Retry(wait=0.01), None], ids=["retried", "not retried"])
@pytest.mark.parametrize(("most", "refusal"), [(2, 429), (6, 429), (3, 503)])
def test_a_peer_that_refuses_gets_about_what_it_carries(
    load: Any, peer: Any, most: int, refusal: int, retry: Any
) -> None:
    # so long that a caller on a slow machine can keep so many under way
    peer.delay, peer.most, peer.refusal = 0.01 * most, most, refusal
    assert answers(load(peer.url, retry=retry).map(rows(600), batch_size=2)) == doubled(600)
    half = len(peer.flying) // 2
    settled = peer.flying[half:]
    assert max(settled) <= most + 1
    assert sum(count > most for count in settled) < 0.1 * len(settled)
    # three quarters of it, where the machine has nothing else to do; on a busy one calls take longer by themselves, and
    # less is asked
    assert sum(settled) / len(settled) > most / 3


def test_a_peer_that_refuses_even_one_at_a_time_is_an_error(load: Any, peer: Any) -> None:
    peer.most = 0
    with pytest.raises(aiaas.RateLimitedError, match="row 0"):
        list(load(peer.url, retry=None).map(rows(20), batch_size=1))


def test_a_number_that_was_given_asks_no_refused_batch_again(load: Any, peer: Any) -> None:
    peer.most = 0
    found = list(load(peer.url, retry=None).map(rows(10), batch_size=1, concurrency=2, on_error="return"))
    assert [type(error) for error in found] == [aiaas.RateLimitedError] * 10
    assert peer.refused == 10


# ---------------------------------------------------------------- failures
def test_what_one_row_causes_costs_only_that_row(load: Any, peer: Any) -> None:
    peer.refuse = lambda rows: 500 if 37.0 in rows else None
    found = list(load(peer.url).map(rows(100), batch_size=8, on_error="return"))
    assert isinstance(found.pop(37), aiaas.ModelError)
    assert answers(found) == [row for row in doubled(100) if row != 74]


def test_each_row_that_is_asked_alone_has_the_whole_timeout(load: Any, peer: Any) -> None:
    peer.delay = 0.1
    peer.refuse = lambda rows: 500 if 7.0 in rows else None
    found = list(load(peer.url, timeout=0.5).map(rows(8), batch_size=8, on_error="skip"))
    assert answers(found) == doubled(7)  # 7 calls of 0.1 s


def test_an_answer_with_too_few_rows_is_an_error_of_ours(load: Any, peer: Any) -> None:
    peer.short = 1
    with pytest.raises(aiaas.ProtocolError, match=r"'y' with shape \[0, 1\] for 1 rows"):
        list(load(peer.url).map(rows(4)))


def test_a_closed_model_ends_the_map_whatever_becomes_of_errors(load: Any, peer: Any) -> None:
    model = load(peer.url)
    found = model.map(rows(1000), batch_size=1, on_error="skip")
    next(found)
    model.close()
    with pytest.raises(aiaas.ClosedError):
        list(found)


# ---------------------------------------------------------------- rows that are awaited
def test_rows_may_have_to_be_awaited(peer: Any) -> None:
    async def source() -> AsyncIterator[np.ndarray]:
        for row in rows(50):
            await asyncio.sleep(0)
            yield row

    async def main() -> list[float]:
        async with aiaas.load_async(peer.url) as model:
            return [answer["y"].item() async for answer in model.map(source(), batch_size=4)]

    assert asyncio.run(main()) == doubled(50)


def test_answers_do_not_wait_for_rows_that_are_slow_to_come(peer: Any) -> None:
    """The source gives each row only when the answer to the one before was seen."""

    async def main() -> list[float]:
        seen: asyncio.Queue[float] = asyncio.Queue()

        async def source() -> AsyncIterator[np.ndarray]:
            for row in rows(10):
                yield row
                await seen.get()

        found = []
        async with aiaas.load_async(peer.url) as model:
            async for answer in model.map(source(), batch_size=1, concurrency=4):
                found.append(answer["y"].item())
                seen.put_nowait(found[-1])
        return found

    assert asyncio.run(asyncio.wait_for(main(), 10)) == doubled(10)


def test_awaited_rows_are_read_no_further_than_the_window(peer: Any) -> None:
    read = 0

    async def source() -> AsyncIterator[np.ndarray]:
        nonlocal read
        for row in rows(200):
            read += 1
            yield row

    async def main() -> None:
        async with aiaas.load_async(peer.url) as model:
            given = 0
            async for _ in model.map(source(), batch_size=4, concurrency=3):
                given += 1
                await asyncio.sleep(0.002)
                assert read <= given + 12

    asyncio.run(main())
    assert read == 200


def test_a_failure_of_awaited_rows_comes_after_the_answers_before_it(peer: Any) -> None:
    async def source() -> AsyncIterator[np.ndarray]:
        for row in rows(10):
            yield row
        raise OSError("the disk is gone")

    async def main() -> None:
        async with aiaas.load_async(peer.url) as model:
            async for answer in model.map(source(), batch_size=4):
                found.append(answer["y"].item())

    found: list[float] = []
    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(main())
    assert found == doubled(10)


def test_a_plain_model_says_that_it_can_not_await(peer: Any) -> None:
    async def source() -> AsyncIterator[Any]:
        yield 1

    with aiaas.load(peer.url) as model, pytest.raises(aiaas.InputError, match="load_async"):
        list(model.map(source()))


# ---------------------------------------------------------------- leaving
def test_leaving_the_loop_asks_no_more(load: Any, peer: Any) -> None:
    peer.delay = 0.05
    found = load(peer.url).map(rows(1000), batch_size=1, concurrency=4)
    next(found)
    found.close()
    time.sleep(0.2)
    asked = len(peer.flying)
    time.sleep(0.2)
    assert len(peer.flying) == asked <= 8


def test_a_batch_that_fails_is_not_asked_row_by_row_for_nobody(load: Any, peer: Any) -> None:
    peer.delay = 0.02
    peer.refuse = lambda rows: 500 if len(rows) > 1 and 0.0 not in rows else None
    found = load(peer.url).map(rows(96), batch_size=32, concurrency=3)
    next(found)
    found.close()
    time.sleep(0.3)
    asked = len(peer.flying)
    time.sleep(0.2)
    assert len(peer.flying) == asked < 10


def test_a_cancelled_map_leaves_no_task_and_no_call_behind(peer: Any) -> None:
    peer.delay = 0.3

    async def main() -> None:
        async with aiaas.load_async(peer.url) as model:
            await model.info()

            async def work() -> None:
                async for _ in model.map(rows(100), batch_size=1, concurrency=4):
                    pass

            task = asyncio.create_task(work())
            await reached(lambda: len(peer.flying) == 4)
            task.cancel()
            watch = Stopwatch()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert watch.took() < 0.15
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert len(peer.flying) == 4


def test_breaking_out_of_an_awaited_map_ends_its_tasks(peer: Any) -> None:
    peer.delay = 0.05

    async def main() -> None:
        async with aiaas.load_async(peer.url) as model:
            found = model.map(rows(100), batch_size=1, concurrency=4)
            async for _ in found:
                break
            await found.aclose()  # type: ignore[attr-defined]
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("face", ["sync", "async"])
def test_ctrl_c_ends_it_at_once(peer: Any, tmp_path: Path, face: str) -> None:
    peer.delay = 20.0
    script = {
        "sync": """
            import sys, aiaas_sdk as aiaas
            model = aiaas.load(sys.argv[1])
            model.info()
            print("ready", flush=True)
            list(model.map([[0.0]] * 100, batch_size=1))
            """,
        "async": """
            import asyncio, sys, aiaas_sdk as aiaas

            async def main():
                async with aiaas.load_async(sys.argv[1]) as model:
                    print("ready", flush=True)
                    async for _ in model.map([[0.0]] * 100, batch_size=1):
                        pass

            asyncio.run(main())
            """,
    }[face]
    command = [sys.executable, "-c", textwrap.dedent(script), peer.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 20
        while peer.now < 4 and time.monotonic() < end:
            time.sleep(0.02)
        watch = Stopwatch()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
        assert watch.took() < 3
    assert process.returncode not in (0, None)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    peer.delay = 0.0
