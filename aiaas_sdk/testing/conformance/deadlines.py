"""Time: deadlines are kept, waiting can be given up, and the event loop goes on."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from aiaas_sdk.errors import AiaasError, DeadlineExceededError
from aiaas_sdk.model import Model
from aiaas_sdk.testing.conformance.bench import LIMIT, Bench, shown
from aiaas_sdk.testing.conformance.checks import agree, check, lacks

SHORT = 0.1
"""Seconds that a call gets which takes half a second or more."""
LATE = 0.25
"""Seconds after its deadline by which a call has failed: less than a model that is waited for takes further."""
TRIES = 3
"""A busy machine is late now and then, a fault each time: what is on time in one of so many tries is right."""


def _slow(bench: Bench) -> str:
    lacks(bench.subject.slow is None, "the subject gives no slow model")
    return str(bench.subject.slow)


def _on_time(tried: Callable[[], float], limit: float, told: str) -> None:
    """Disagree where each try takes this many seconds or more; `told` says how many the quickest took."""
    soonest = math.inf
    for _ in range(TRIES):
        soonest = min(soonest, tried())
        if soonest < limit:
            return
    agree(False, told.format(soonest))


def _question(bench: Bench, model: Model[Any, Any]) -> dict[str, Any]:
    return bench.question(1, info=model.info())


@check("predict")
def deadlines_are_kept(bench: Bench) -> None:
    """A call that takes too long raises DeadlineExceededError on time."""
    address = _slow(bench)

    def tried() -> float:
        model = bench.fresh(address)
        inputs = _question(bench, model)
        begun = time.monotonic()
        try:
            model.predict(inputs, timeout=SHORT)
        except DeadlineExceededError:
            return time.monotonic() - begun
        except Exception as error:
            agree(False, f"the call raised {shown(error)}")
        agree(False, f"a call of {SHORT} s was answered after {time.monotonic() - begun:.2f} s; is the model slow?")
        return 0.0

    _on_time(tried, SHORT + LATE, f"a call of {SHORT} s failed after {{:.2f}} s")


@check("predict")
def deadlines_are_kept_awaited(bench: Bench) -> None:
    """The same, awaited."""
    address = _slow(bench)
    inputs = _question(bench, bench.fresh(address))

    async def asked() -> float:
        async with bench.fresh_awaited(address) as model:
            begun = time.monotonic()
            try:
                await model.predict(inputs, timeout=SHORT)
            except DeadlineExceededError:
                return time.monotonic() - begun
            agree(False, f"a call of {SHORT} s was answered after {time.monotonic() - begun:.2f} s")
            return 0.0

    _on_time(lambda: bench.wait(asked()), SHORT + LATE, f"a call of {SHORT} s failed after {{:.2f}} s")


@check("predict")
def a_missed_deadline_leaves_the_model_usable(bench: Bench) -> None:
    """After a missed deadline the model answers again, when what ran has ended."""
    model = bench.fresh(_slow(bench))
    inputs = _question(bench, model)
    right = model.predict(inputs)
    try:
        model.predict(inputs, timeout=SHORT)
    except AiaasError:
        bench.same(model.predict(inputs, timeout=LIMIT), right, "after a missed deadline")


@check("predict")
def the_event_loop_goes_on(bench: Bench) -> None:
    """While a call is awaited, other tasks of the loop get their turn."""
    address = _slow(bench)
    inputs = _question(bench, bench.fresh(address))

    async def asked() -> float:
        async with bench.fresh_awaited(address) as model:
            ticks = [time.monotonic()]
            call = asyncio.ensure_future(model.predict(inputs))
            while not call.done():
                await asyncio.sleep(0.01)
                ticks.append(time.monotonic())
            await call
            return max(after - before for before, after in pairwise(ticks))

    _on_time(lambda: bench.wait(asked()), LATE, "the loop stood still for {:.2f} s")


@check("predict")
def waiting_can_be_given_up(bench: Bench) -> None:
    """A task that is cancelled ends at once, and the model answers the next call."""
    address = _slow(bench)
    inputs = _question(bench, bench.fresh(address))

    async def left() -> float:
        async with bench.fresh_awaited(address) as model:
            await model.info()
            call = asyncio.ensure_future(model.predict(inputs))
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                pass
            else:
                agree(False, "a cancelled call was answered")
            return time.monotonic() - begun

    _on_time(lambda: bench.wait(left()), LATE, "a cancelled call ended after {:.2f} s")


@check("predict")
def a_call_given_up_leaves_the_model_usable(bench: Bench) -> None:
    """After a cancelled call the same model answers as before."""
    address = _slow(bench)
    plain = bench.fresh(address)
    inputs = _question(bench, plain)

    async def again() -> Any:
        async with bench.fresh_awaited(address) as model:
            call = asyncio.ensure_future(model.predict(inputs))
            await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.wait({call})
            return await model.predict(inputs, timeout=LIMIT)

    bench.same(bench.wait(again()), plain.predict(inputs), "after a cancelled call")


@check("predict")
def a_model_may_be_closed_at_work(bench: Bench) -> None:
    """Closing doesn't wait for a call that runs: that is answered, or fails with one of our errors."""
    address = _slow(bench)

    def tried() -> float:
        model = bench.fresh(address)
        inputs = _question(bench, model)
        came: list[BaseException | None] = []

        def ask() -> None:
            try:
                model.predict(inputs, timeout=LIMIT)
                came.append(None)
            except BaseException as error:
                came.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        time.sleep(0.05)
        begun = time.monotonic()
        model.close()
        seconds = time.monotonic() - begun
        thread.join(LIMIT)
        agree(bool(came), f"the call was neither answered nor failed in {LIMIT:.0f} s")
        agree(came[0] is None or isinstance(came[0], AiaasError), f"the call raised {came[0]!r}")
        return seconds

    _on_time(tried, LATE, "close() waited {:.2f} s for the call")
