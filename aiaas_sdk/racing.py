"""Several flows at once, of which the first result counts: what hedging is made of.

Most races are over before the second flow starts, so the first one has to cost little more than if it went alone. In
an event loop it runs in the caller's own task. In plain Python it runs in the caller's thread until the second one's
time has come; from there on several things are waited for at once, which is what an event loop is for, and what is
left of the first goes on in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from aiaas_sdk.flow import (
    AsyncSender,
    Begun,
    Compound,
    Effect,
    Flow,
    Send,
    Sender,
    Sleep,
    Wait,
    adrive,
    nearest,
    unanswered,
    within,
)

__all__ = ["Race", "race"]

T = TypeVar("T")
Outcome: TypeAlias = tuple[int, Any]
"""The number of the flow that won, and its result."""


@dataclass(frozen=True, slots=True)
class Race(Compound):
    """The first result of several flows, each started `delay` seconds after the one before it.

    Gives the number of the flow that won, and its result. The others are cancelled. A flow that fails leaves it to
    those that run; where none runs any more, the first one's failure is the race's.
    """

    flows: Sequence[Flow[Any]]
    delay: float

    def perform(self, sender: Sender, deadline: float | None) -> Outcome:
        pause = time.monotonic() + self.delay
        try:
            try:
                left = _first_part(self.flows[0], sender, deadline, pause)
            except StopIteration as stop:
                return 0, stop.value
            flows = (_resumed(self.flows[0], left), *self.flows[1:])
            return _in_a_loop(partial(_go_on, flows, self.delay, pause, sender, deadline))
        finally:
            self._close()

    async def aperform(self, sender: AsyncSender, deadline: float | None) -> Outcome:
        try:
            return await Lanes(self.flows, self.delay, sender, deadline).run(self.delay)
        finally:
            self._close()

    def _close(self) -> None:
        """Each has ended by now, but for those that were never started."""
        for flow in self.flows:
            flow.close()


def race(flows: Sequence[Flow[T]], delay: float) -> Flow[tuple[int, T]]:
    return (yield Race(flows, delay))  # type: ignore[no-any-return]


# ---------------------------------------------------------------- in an event loop
class Lanes:
    """The first flow runs in the task that asks for the outcome, the others in tasks of their own."""

    _leading: asyncio.Task[Any] | None = None  # the task of the first flow, while that runs
    _timer: asyncio.TimerHandle
    _running = 0  # how many of the others do
    _stopping = False
    _won: Outcome | None = None
    _decided: asyncio.Future[None] | None = None

    def __init__(self, flows: Sequence[Flow[Any]], delay: float, sender: AsyncSender, deadline: float | None) -> None:
        self._flows, self._delay, self._sender, self._deadline = flows, delay, sender, deadline
        self._others: list[asyncio.Task[Any]] = []

    async def run(self, start: float) -> Outcome:
        """The second flow starts in so many seconds, each further one `delay` after it."""
        self._leading = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        self._timer = task.get_loop().call_later(start, self._next)
        try:
            return 0, await adrive(self._flows[0], self._sender, self._deadline)
        except BaseException as error:
            self._leading = None
            # what was our own doing ends here, as in asyncio.timeout; a cancellation by others goes on
            ours = self._stopping and task.uncancel() <= before and isinstance(error, asyncio.CancelledError)
            if (ours or isinstance(error, Exception)) and (won := await self._rest()) is not None:
                return won
            raise
        finally:
            self._leading = None
            self._timer.cancel()
            if self._others:
                await self._end()

    def _next(self) -> None:
        """The next flow's time has come."""
        loop, number = asyncio.get_running_loop(), len(self._others) + 1
        task = loop.create_task(adrive(self._flows[number], self._sender, self._deadline))
        self._others.append(task)
        self._running += 1
        task.add_done_callback(partial(self._ended, number))
        if number + 1 < len(self._flows):
            self._timer = loop.call_later(self._delay, self._next)

    def _ended(self, number: int, task: asyncio.Task[Any]) -> None:
        self._running -= 1
        if not task.cancelled() and task.exception() is None and self._won is None:
            self._won = number, task.result()
            if self._leading is not None:
                self._stopping = self._leading.cancel()
        if self._decided is not None and not self._decided.done() and (self._won or not self._running):
            self._decided.set_result(None)

    async def _rest(self) -> Outcome | None:
        """What the others come to when the first flow has ended without a result; None where they fail too."""
        if self._won is None and self._running:
            self._decided = asyncio.get_running_loop().create_future()
            await self._decided
        return self._won

    async def _end(self) -> None:
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._others, return_exceptions=True)


# ---------------------------------------------------------------- in plain Python
class _Paused(BaseException):  # no failure
    """The second flow's time came first; `left` is what is to be done from there on."""

    def __init__(self, left: Effect) -> None:
        super().__init__()
        self.left = left


@dataclass(frozen=True, slots=True)
class _Finish(Compound):
    """What is left of a request."""

    begun: Begun

    async def aperform(self, sender: AsyncSender, deadline: float | None) -> Any:
        return await sender.finish(self.begun)


def _first_part(flow: Flow[Any], sender: Sender, deadline: float | None, pause: float) -> Effect:
    """Perform a flow up to the moment `pause`: gives the effect with which it goes on. Its end is a StopIteration."""
    step: Callable[[Any], Effect] = flow.send
    outcome: Any = None
    while True:
        effect = step(outcome)
        try:
            outcome, step = _performed(effect, sender, deadline, pause), flow.send
        except _Paused as paused:
            return paused.left
        except Exception as error:
            outcome, step = error, flow.throw


def _performed(effect: Effect, sender: Sender, deadline: float | None, pause: float) -> Any:
    """What most requests consist of is performed here; the rest at once in the loop."""
    match effect:
        case Send(request, timeout):
            reply = sender.begin(request, nearest(deadline, timeout), pause)
            if isinstance(reply, Begun):
                raise _Paused(_Finish(reply))
            return reply
        case Sleep(seconds):
            return _sleep(time.monotonic() + within(deadline, seconds), pause)
        case Wait():
            return _wait(effect, nearest(deadline, effect.timeout), pause)
    raise _Paused(effect)


def _sleep(end: float, pause: float) -> None:
    time.sleep(max(0.0, min(end, pause) - time.monotonic()))
    if end > pause:
        raise _Paused(Sleep(end - pause))


def _wait(effect: Wait, until: float | None, pause: float) -> Any:
    first = pause if until is None else min(until, pause)
    try:
        return effect.future.result(first - time.monotonic())
    except FutureTimeout:
        if first == until:
            raise unanswered(effect.what) from None
    raise _Paused(Wait(effect.future, effect.what, None if until is None else until - time.monotonic()))


def _resumed(flow: Flow[T], effect: Effect) -> Flow[T]:
    """The flow, from that effect on."""
    step: Callable[[Any], Effect]
    try:
        while True:
            try:
                outcome, step = (yield effect), flow.send
            except BaseException as error:
                outcome, step = error, flow.throw
            effect = step(outcome)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _go_on(
    flows: Sequence[Flow[Any]], delay: float, pause: float, sender: Sender, deadline: float | None
) -> Outcome:
    return await Lanes(flows, delay, sender.awaited, deadline).run(pause - time.monotonic())


def _in_a_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Where the caller's thread runs a loop already, another thread runs this one, and the caller waits for it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # a loop of ours, which leaves alone the one that the thread may have for later
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work())
    return _in_a_thread(work)


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    outcome: Future[T] = Future()
    given_up: Future[None] = Future()

    async def stoppable() -> T:
        task = asyncio.ensure_future(work())
        given_up.add_done_callback(partial(_cancel, task))
        return await task

    def carry_out() -> None:
        try:
            outcome.set_result(_in_a_loop(stoppable))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(carry_out,), name="aiaas-race", daemon=True)
    thread.start()
    try:
        return outcome.result()
    except BaseException:  # Ctrl-C, perhaps
        given_up.cancel()
        raise
    finally:
        thread.join()


def _cancel(task: asyncio.Task[Any], _: Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        task.get_loop().call_soon_threadsafe(task.cancel)
