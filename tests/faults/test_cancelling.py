"""Cancellation, threads, processes: rows X01 to X07 of the fault catalogue."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.faults import Fault, FaultServer, answer, cut, drip, page, reset, slow, stall, status
from tests.stopwatch import Stopwatch, unhurried
from tests.waiting import ctrl_c, reached, until

X = np.arange(6, dtype=np.float32).reshape(2, 3)
BIG = np.zeros((1 << 22, 3), np.float32)
"""48 MiB, which no peer takes before it reads."""
WARY = {"limits": aiaas.Limits(concurrency=1), "breaker": aiaas.Breaker(minimum=1, failures=0.01, rest=60)}
"""Any slot that is lost and any cancellation that is counted shows in the next call."""
STAGES: dict[str, Fault] = {
    "sending": stall("accept"),
    "waiting": stall("request"),
    "in the head": stall("head"),
    "in the body": stall("body"),
    "in a chunk": drip("chunk header"),
    "asleep before a retry": status(503, retry_after=30),
}


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a port whose queue is full: a connection to it neither comes about nor fails."""
    if sys.platform != "linux":
        pytest.skip("other systems take more connections than were asked for")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/double"
        for one in crowd:
            one.close()


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel it twice; it ends at once, with CancelledError and nothing else."""
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    watch = Stopwatch()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert type(caught.value) is asyncio.CancelledError
    assert watch.took() < 0.1


# ---------------------------------------------------------------- X01
@pytest.mark.parametrize("stage", STAGES)
async def test_x01_a_cancelled_call_ends_at_once_and_leaves_nothing(
    server: FaultServer, hung_up: Any, stage: str
) -> None:
    server.on("metadata", Fault("close", _closing))
    async with aiaas.load_async(server.address, timeout=60, **WARY) as model:
        server.clear()
        server.script([STAGES[stage]])
        task = asyncio.create_task(model.predict(BIG if stage == "sending" else X))
        await reached(lambda: server.connections if stage == "sending" else server.requests)
        await asyncio.sleep(0.1)
        await cancelled(task)
        kept = stage == "asleep before a retry"
        await asyncio.to_thread(lambda: None if kept else hung_up(server.connections[0]))
        assert len(server.requests) == (0 if stage == "sending" else 1)
        if kept:  # a 503 counts for the breaker, whoever is cancelled after it
            return
        assert (await model.predict(X)).array.tolist() == (2 * X).tolist()
        assert model.stats().failures == 1


def _closing(exchange: Any) -> None:
    right = exchange.answer.with_fields({"connection": "close"})
    exchange.send(right.head() + right.body)
    exchange.hang_up()


async def test_x01_while_connecting(full: str, server: FaultServer) -> None:
    model = aiaas.load_async(full, timeout=60, **WARY)
    task = asyncio.create_task(model.predict(X))
    await asyncio.sleep(0.2)
    await cancelled(task)
    await model.aclose()


async def test_x01_while_opening_and_the_next_call_opens(server: FaultServer) -> None:
    server.on("metadata", stall())
    model = aiaas.load_async(server.address, timeout=60, **WARY)
    task = asyncio.create_task(model.predict(X))
    await reached(lambda: server.of("metadata"))
    await cancelled(task)
    assert (await model.predict(X)).attempts == 1
    await model.aclose()


@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"connections": 1}], ids=["concurrency", "connections"])
async def test_x01_while_waiting_for_a_slot_which_is_not_lost(
    server: FaultServer, held: Any, limits: dict[str, Any]
) -> None:
    async with aiaas.load_async(server.address, timeout=60, limits=aiaas.Limits(**limits)) as model:
        server.on("predict", held.fault)
        first = asyncio.create_task(model.predict(X))
        await reached(lambda: server.of("predict"))
        waiting = [asyncio.create_task(model.predict(X)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert len(server.of("predict")) == 1
        for task in waiting:
            await cancelled(task)
        held.let_go()
        assert (await first).attempts == 1
        assert (await model.predict(X)).attempts == 1
        assert len(server.of("predict")) == 2


async def test_x01_while_waiting_for_its_turn_which_the_next_one_gets(server: FaultServer) -> None:
    limits = aiaas.Limits(requests_per_second=2)
    async with aiaas.load_async(server.address, timeout=60, limits=limits) as model:
        watch = Stopwatch()
        waiting = [asyncio.create_task(model.predict(X)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in reversed(waiting):
            await cancelled(task)
        await model.predict(X)
        assert watch.took() < 1


@pytest.mark.slow
async def test_x01_five_thousand_cancelled_calls_cost_no_slot(server: FaultServer) -> None:
    server.on("predict", then=slow(0.005))
    order = random.Random(7)
    async with aiaas.load_async(server.address, timeout=30, limits=aiaas.Limits(concurrency=4)) as model:

        async def given_up() -> None:
            task = asyncio.create_task(model.predict(X))
            await asyncio.sleep(order.random() * 0.02)
            task.cancel()
            await asyncio.wait([task])

        for _ in range(100):
            await asyncio.gather(*(given_up() for _ in range(50)))
        server.on("predict")
        begun = time.monotonic()
        await asyncio.gather(*(model.predict(X) for _ in range(200)))
        assert time.monotonic() - begun < 5


# ---------------------------------------------------------------- X02
def interrupted(model: Any, when: Callable[[], Any], x: Any = X) -> None:
    with ctrl_c(when) as pressed, pytest.raises(KeyboardInterrupt) as caught:
        model.predict(x)
    took = pressed[0].took()
    assert type(caught.value) is KeyboardInterrupt
    assert took < 0.3


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("timeout", [60, None])
def test_x02_ctrl_c_ends_a_call_at_once_and_the_model_is_usable(
    server: FaultServer, hung_up: Any, stage: str, timeout: float | None
) -> None:
    server.on("metadata", Fault("close", _closing))
    with aiaas.load(server.address, timeout=timeout, **WARY) as model:
        server.clear()
        server.script([STAGES[stage]])
        if stage == "sending":
            interrupted(model, lambda: server.connections, BIG)
        else:
            interrupted(model, lambda: server.requests)
        if stage == "asleep before a retry":
            return
        hung_up(server.connections[0])
        assert model.predict(X).array.tolist() == (2 * X).tolist()


def test_x02_while_connecting(full: str) -> None:
    model = aiaas.load(full, timeout=60)
    interrupted(model, lambda: True)
    model.close()


def test_x02_while_waiting_for_a_slot(server: FaultServer, held: Any) -> None:
    limits = aiaas.Limits(concurrency=1)
    with aiaas.load(server.address, timeout=60, limits=limits) as model:
        server.on("predict", held.fault)
        thread = threading.Thread(target=model.predict, args=(X,))
        thread.start()
        until(lambda: server.of("predict"))
        interrupted(model, lambda: True)
        held.let_go()
        thread.join()
        assert model.predict(X).attempts == 1
        assert len(server.of("predict")) == 2


# ---------------------------------------------------------------- X03
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("face", ["sync", "async"])
def test_x03_a_forked_child_makes_its_own_connections(server: FaultServer, face: str) -> None:
    model: Any = (aiaas.load if face == "sync" else aiaas.load_async)(server.address, timeout=5)

    def ask(number: float) -> bool:
        outcome = model.predict(X + number)
        prediction = outcome if face == "sync" else asyncio.run(_awaited(outcome))
        return bool((prediction.array == 2 * (X + number)).all())

    assert ask(0)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if all(ask(1000 + number) for number in range(50)) else 1)
        finally:
            os._exit(2)
    assert all(ask(number) for number in range(50))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(7)
    assert len({seen.connection for seen in server.of("predict")}) == 2
    if face == "sync":
        model.close()
    else:
        asyncio.run(model.aclose())


async def _awaited(outcome: Any) -> Any:
    return await outcome


# ---------------------------------------------------------------- X04
def test_x04_one_async_model_in_two_loops_at_once_and_after_both(server: FaultServer) -> None:
    model = aiaas.load_async(server.address, timeout=10)
    server.on("predict", then=slow(0.002))
    wrong: list[Any] = []

    async def use(base: float) -> None:
        async def one(number: float) -> None:
            if not ((await model.predict(X + number)).array == 2 * (X + number)).all():
                wrong.append(number)

        for turn in range(5):
            await asyncio.gather(*(one(base + 100 * turn + number) for number in range(16)))

    loops = [threading.Thread(target=lambda base=base: asyncio.run(use(base))) for base in (0, 10_000)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    asyncio.run(use(20_000))
    asyncio.run(model.aclose())
    assert not wrong
    assert len(server.of("predict")) == 240


# ---------------------------------------------------------------- X05
ENDS = """
    import asyncio, sys, threading, time
    import numpy as np
    import aiaas_sdk as aiaas

    address, how = sys.argv[1:]
    x = np.ones((2, 3), np.float32)
    model = aiaas.load(address)
    model.predict(x)

    def hang():
        model.predict(x, timeout=60)

    async def leave():
        awaited = aiaas.load_async(address)
        await awaited.predict(x)
        asyncio.get_running_loop().create_task(awaited.predict(x))
        await asyncio.sleep(0.3)
        if how == "inside a loop":
            sys.exit(0)

    if how == "in a thread":
        threading.Thread(target=hang, daemon=True).start()
        time.sleep(0.3)
    elif how == "in a map":
        rows = model.map(np.ones((50, 3), np.float32), batch_size=1, concurrency=4)
        next(rows)
    else:
        asyncio.run(leave())
    print(time.time(), flush=True)
"""


LEFT: dict[str, tuple[int, Fault | None]] = {
    "in a thread": (1, stall()),
    "in a map": (2, slow(0.2)),
    "inside a loop": (2, stall()),
}
"""Where the process ends, and how the server answers until then: so many times rightly."""


@pytest.mark.slow
@pytest.mark.parametrize("how", LEFT)
def test_x05_r30_a_process_that_just_ends_ends_well_and_quietly(server: FaultServer, tmp_path: Path, how: str) -> None:
    right, then = LEFT[how]
    server.on("predict", *[answer()] * right, then=then)
    script = tmp_path / "ends.py"
    script.write_text(textwrap.dedent(ENDS))
    command = [sys.executable, "-X", "dev", str(script), server.address, how]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    ended = time.time()
    assert done.returncode == 0
    words = unhurried(done.stderr).splitlines()
    lines = [line for line in words if "ResourceWarning" not in line and "tracemalloc" not in line]
    assert lines == []
    if done.stdout:
        assert ended - float(done.stdout) < 5


# ---------------------------------------------------------------- X06
ERRORS = [
    status(400, {"error": "words"}),
    status(429, retry_after=60),
    status(503, {"error": "words"}, headers={"x-request-id": "r-7"}),
    reset(),
    cut("body"),
    page(),
    stall(),
]


@pytest.mark.parametrize("fault", ERRORS, ids=lambda fault: fault.name)
def test_x06_an_error_survives_pickle(case: Any, fault: Fault) -> None:
    case.fresh(retry=None)
    case.server.on("predict", fault)
    with pytest.raises(aiaas.AiaasError) as caught:
        case.model.predict(X, timeout=0.3)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(caught.value, protocol))
        assert type(again) is type(caught.value)
        assert str(again) == str(caught.value)
        assert vars(again) == vars(caught.value)
        assert again.retryable == caught.value.retryable


def test_x06_what_had_arrived_survives_pickle() -> None:
    error = aiaas.StreamInterruptedError("the stream ended early", partial="half a sent")
    assert pickle.loads(pickle.dumps(error)).partial == "half a sent"


def test_x06_a_model_refuses_with_a_hint(case: Any) -> None:
    for made in (aiaas.load(case.server.address), aiaas.load_async(case.server.address, api_key="KEY")):
        with pytest.raises(TypeError, match="send its address"):
            pickle.dumps(made)


# ---------------------------------------------------------------- X07
OVERLAPS: list[int] = []
INSIDE: list[float] = []


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that sleeps for x[0,0] seconds, raises after it where x[0,1] is 1, and gives 2x."""
    torch = pytest.importorskip("torch")

    @aiaas.architecture("faults-sleeper")
    class Sleeper(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Any) -> Any:
            seconds, fails = (float(value) for value in x[0, :2]) if len(x) else (0.0, 0.0)
            if seconds:
                INSIDE.append(seconds)
                OVERLAPS.append(len(INSIDE))
                time.sleep(seconds)
                INSIDE.pop()
            if fails:
                raise RuntimeError("too late")
            return self.scale * x

    folder = tmp_path_factory.mktemp("sleeper") / "sleeper"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder.parent / "home"))
        aiaas.save(Sleeper(), folder, example=np.zeros((1, 3), np.float32), architecture="faults-sleeper")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_x07_r08_a_forward_pass_past_its_deadline_fails_on_time_and_keeps_its_slot(
    load: Any, sleeper: Path, caplog: pytest.LogCaptureFixture, fails: int
) -> None:
    OVERLAPS.clear()
    slow_input = np.array([[0.7, fails, 0]], np.float32)
    with load(str(sleeper)) as model, caplog.at_level(logging.WARNING, "aiaas_sdk"):
        model.predict(X * 0)
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(slow_input, timeout=0.2)
        assert watch.took() < 0.2 + 0.25
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(np.array([[0.01, 0, 0]], np.float32), timeout=0.2)
        assert model.predict(np.array([[0.01, 0, 0]], np.float32), timeout=5).array[0, 0] == np.float32(0.02)
        assert watch.took() >= 0.7
        assert max(OVERLAPS) == 1
        late = [record.getMessage() for record in caplog.records if "abandoned" in record.getMessage()]
        assert len([line for line in late if "failed" in line]) == fails
        assert len(late) == 1
