"""20,000 calls through bad weather: each has its own answer or an error that fits, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import AiaasError
from tests.soak.weather import KINDS, STALE, UNHEARD, UNSEEN

CALLS, WARM = 20_000, 10_000
THREADS, TASKS = 8, 32
ONCE = 10
"""Every tenth call is of a verb that may not be sent twice."""
ATTEMPTS = 3
OPTIONS: dict[str, Any] = {
    "timeout": 20,
    "attempt_timeout": 0.5,
    "retry": aiaas.Retry(attempts=ATTEMPTS, wait=0.01),
    "limits": aiaas.Limits(connections=24),  # fewer than want one
}
MIB = 1 << 20
GROWN, BLOCKS = 8.0, 2_500
"""MiB and Python's memory blocks that the calls after the first `WARM` may add. MiB tell of the allocator too; a block
left behind by each call would be four times as many, and this test's own log of failures is a quarter of them."""


# ---------------------------------------------------------------- the server
class Server:
    """The process of `weather.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("weather.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the fault server ended early (status {self._process.wait(5)})"
        return line.strip()

    def ask(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def met(self) -> dict[int, list[str]]:
        """The faults that each call met, in order."""
        self.ask()
        return {int(number): names for number, names in json.loads(self._answer()).items()}

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


# ---------------------------------------------------------------- the calls
class Failed(NamedTuple):
    error: str
    attempts: int
    spent: bool
    """The retry budget was."""


class Log:
    """How each call ended. What holds it is there from the start: memory is measured around the calls."""

    def __init__(self, calls: int) -> None:
        self.answers = bytearray(calls)
        self.wrong: list[tuple[int, Any]] = []
        self.failed: list[Failed | None] = [None] * calls

    def answered(self, number: int, y: Any) -> None:
        if y.dtype == np.float32 and np.array_equal(y, 2 * given(number)):
            self.answers[number] += 1
        else:
            self.wrong.append((number, y.tolist()))

    def failed_with(self, number: int, error: AiaasError) -> None:
        assert self.failed[number] is None
        self.failed[number] = Failed(type(error).__name__, error.attempts, "budget is empty" in str(error))


def given(number: int) -> Any:
    return np.array([[number, number % 7, -1]], np.float32)


def once(load: Callable[..., Any], address: str) -> Any:
    """A model whose `predict` stands for a verb that may not be sent twice."""
    model = load(address, **OPTIONS)
    model._engine.backend.idempotent = frozenset(("open", "ready"))
    return model


def plain_calls(models: list[Any], numbers: Iterator[int], log: Log) -> None:
    for number in numbers:
        try:
            log.answered(number, models[number % ONCE == 0].predict(given(number))["y"])
        except AiaasError as error:
            log.failed_with(number, error)


async def awaited_calls(models: list[Any], numbers: Iterator[int], log: Log) -> None:
    for number in numbers:
        try:
            log.answered(number, (await models[number % ONCE == 0].predict(given(number)))["y"])
        except AiaasError as error:
            log.failed_with(number, error)


async def phase(plain: list[Any], awaited: list[Any], first: int, last: int, log: Log) -> None:
    """The calls of these numbers, half of them from threads and half from tasks, at the same time."""
    middle = (first + last) // 2
    halves = iter(range(first, middle)), iter(range(middle, last))  # `next` on a range is one step for threads
    threads = [threading.Thread(target=plain_calls, args=(plain, halves[0], log)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(awaited_calls(awaited, halves[1], log) for _ in range(TASKS)))
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])


# ---------------------------------------------------------------- what is left behind
class Held(NamedTuple):
    files: int
    threads: int
    tasks: int
    memory: float
    """MiB."""
    blocks: int


def held() -> Held:
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's: what is free goes back, so that what is held is seen
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        len(os.listdir("/proc/self/fd")),
        sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),  # the loop's own pool
        len(asyncio.all_tasks()),
        pages * os.sysconf("SC_PAGE_SIZE") / MIB,
        sys.getallocatedblocks(),
    )


async def weathered(server: Server, log: Log, marks: Sequence[int]) -> list[Held]:
    """Calls up to the last of these numbers. What is held before the models are loaded, after each number of calls,
    and when the models are closed."""
    found = [held()]
    plain = [aiaas.load(server.address, **OPTIONS), once(aiaas.load, server.address)]
    awaited = [aiaas.load_async(server.address, **OPTIONS), once(aiaas.load_async, server.address)]
    for model in plain:
        await asyncio.to_thread(model.wait_ready)
    for model in awaited:
        await model.wait_ready()
    server.ask()
    for first, last in itertools.pairwise((0, *marks)):
        await phase(plain, awaited, first, last, log)
        found.append(held())
    for model in plain:
        model.close()
    for model in awaited:
        await model.aclose()
    return [*found, held()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.timeout(300)
def test_every_call_ends_as_it_may_and_nothing_is_left_behind(server: Server) -> None:
    log = Log(CALLS)
    before, warm, hot, after = asyncio.run(weathered(server, log, (WARM, CALLS)))
    met = server.met()

    assert log.wrong == []
    ends = [count + (failed is not None) for count, failed in zip(log.answers, log.failed, strict=True)]
    assert ends == [1] * CALLS  # none lost, none told twice
    assert [text for number in range(CALLS) if (text := unfit(number, log.failed[number], met.get(number, [])))] == []
    assert {name for names in met.values() for name in names} >= KINDS.keys() - {UNHEARD}  # as bad as it can be
    assert sum(log.answers) > 0.9 * CALLS

    most = THREADS + TASKS
    assert hot.files <= before.files + most
    assert after.files == before.files
    assert {held.tasks for held in (before, warm, hot, after)} == {1}
    assert {held.threads for held in (before, warm, hot, after)} == {before.threads}
    assert hot.memory < warm.memory + GROWN, (before, warm, hot, after)
    assert hot.blocks < warm.blocks + BLOCKS, (before, warm, hot, after)


def unfit(number: int, failed: Failed | None, met: list[str]) -> str | None:
    """What is wrong with how a call ended, given what its requests met; None where all is well."""
    kinds, told = [KINDS[name] for name in met], f"call {number}: {failed or 'an answer'} after {met}"
    may = [kind.any_verb if number % ONCE == 0 else kind.again or not kind.errors for kind in kinds]
    if not all(may[:-1]):
        return f"sent again, {told}"
    if failed is None:
        return None if kinds and not kinds[-1].errors else told
    unread = len(met) < failed.attempts or met[-1] in STALE
    if unread and failed.error in UNSEEN:
        return None
    if not kinds or failed.error not in kinds[-1].errors:
        return told
    if may[-1] and failed.attempts < ATTEMPTS and not failed.spent:
        return f"given up too early, {told}"
    return None


def test_a_call_is_held_to_what_its_requests_met() -> None:
    """The rule of the test above, tried on calls that went wrong."""
    lost = Failed("ConnectionLostError", 1, False)
    assert unfit(1, None, ["reset body", "answer"]) is None
    assert unfit(1, None, ["answer", "reset body"])
    assert unfit(1, lost, ["reset body"])
    assert unfit(1, lost._replace(attempts=3), ["reset body"] * 3) is None
    assert unfit(1, lost._replace(attempts=3), ["reset body", "status 400", "reset body"])
    assert unfit(10, lost, ["reset body"]) is None
    assert unfit(10, None, ["reset body", "answer"])
    assert unfit(10, None, ["status 503", "answer"]) is None
    assert unfit(1, Failed("ConnectError", 3, False), []) is None
    assert unfit(1, Failed("ProtocolError", 1, False), ["status 400"])
