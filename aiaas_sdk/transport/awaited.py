"""The sender of the awaited face: the same steps, performed in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.flow import Begun, Buffer, Reply, Request
from aiaas_sdk.transport.connection import Connection
from aiaas_sdk.transport.courier import Courier, failed, reading
from aiaas_sdk.transport.plain import in_threads, wait_ready
from aiaas_sdk.transport.steps import READ, WRITE, Awaited, Ready, Settled, Step, Steps, left
from aiaas_sdk.transport.threads import started
from aiaas_sdk.transport.watching import Watch

__all__ = ["AsyncHttpSender", "perform"]

T = TypeVar("T")

EXPIRED = 0


class AsyncHttpSender:
    """Sends from any event loop, also from several at once.

    With the courier of a plain sender it works over that one's connections, and leaves nothing to a loop that lasts
    for one call only: a transport that the user handed in is used as the plain sender uses it.
    """

    def __init__(self, courier: Courier | None = None) -> None:
        self._courier = Courier() if courier is None else courier
        self._wait = _wait if courier is None else _wait_without_loop

    async def send(self, request: Request, until: float | None) -> Reply:
        """The whole reply. A kept connection that the peer had closed is replaced once, silently."""
        return await perform(self._courier.send(request, until), self._wait)

    async def finish(self, begun: Begun) -> Reply:
        """The reply to a request that the plain sender of the same connections began."""
        steps, step = begun.rest
        reply: Reply = await perform(steps, self._wait, step)
        return reply

    async def open(self, request: Request, until: float | None) -> Reply:
        """The reply as far as its head."""
        return await perform(self._courier.open(request, until), self._wait)

    async def read(self, reply: Reply, until: float | None) -> Buffer:
        """The next piece of an opened reply; empty at its end."""
        exchange = reading(reply)
        link, answer = exchange.link, exchange.answer
        if link is not None and not answer.pieces:
            watch = _watch(link)
            if watch is None:
                return await perform(self._courier.read(reply, until), self._wait)
            try:
                await watch.receive(link, answer, until)  # type: ignore[arg-type]  # where it is a connection of ours
            except BaseException as error:
                failed(exchange, error)
        return self._courier.received(exchange)

    async def release(self, reply: Reply) -> None:
        """Give back an opened reply's connection."""
        await perform(self._courier.release(reply), self._wait)

    def close(self) -> None:
        """Close the kept connections; from anywhere, since none of them belongs to a loop."""
        self._courier.close()


async def _wait(step: Step) -> Any:
    if type(step) is Ready:
        try:
            return await _wait_ready(step)
        except NotImplementedError:  # the Proactor loop (Windows) watches no sockets
            step = Settled(started(partial(wait_ready, step)), step.until)
    if type(step) is Awaited:
        try:
            async with asyncio.timeout(left(step.until)):
                return await step.work()
        except AiaasError:
            raise
        except TimeoutError:
            pass
        raise TimeoutError  # another one, without the frames of a transport, which hold headers
    assert type(step) is Settled
    outcome, loop = step.future, asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    outcome.add_done_callback(lambda _: _tell(loop, future))
    await _woken(future, step.until)
    return outcome.result()


def _wait_without_loop(step: Step) -> Awaitable[Any]:
    return _wait(in_threads(step))


async def perform(steps: Steps[T], wait: Callable[[Step], Awaitable[Any]] = _wait, begun: Step | None = None) -> T:
    """Carry out steps in this task, from `begun` on where they were begun elsewhere.

    A cancellation goes into them and comes out again.
    """
    try:
        step = next(steps) if begun is None else begun
        while True:
            try:
                outcome = await wait(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def _watch(link: Any) -> Watch | None:
    """The watch on a connection of ours in this loop; None where there can't be one."""
    if type(link) is not Connection:
        return None
    loop, watch = asyncio.get_running_loop(), link.watch
    if watch is None or (watch.loop is not loop and watch.end()):
        watch = link.watch = Watch(loop, link.fileno(), _wait)
    return watch if watch.loop is loop else None


async def _wait_ready(step: Ready) -> int:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    if step.want & READ:
        loop.add_reader(step.fd, _wake, future, READ)
    if step.want & WRITE:
        loop.add_writer(step.fd, _wake, future, WRITE)
    try:
        return await _woken(future, step.until)
    finally:
        if step.want & READ:
            loop.remove_reader(step.fd)
        if step.want & WRITE:
            loop.remove_writer(step.fd)


async def _woken(future: asyncio.Future[int], until: float | None) -> int:
    """What the future is woken with; TimeoutError where `until` comes first."""
    seconds = left(until)
    timer = None if seconds is None else future.get_loop().call_later(seconds, _wake, future, EXPIRED)
    try:
        outcome = await future
    finally:
        if timer is not None:
            timer.cancel()
    if outcome == EXPIRED:
        raise TimeoutError
    return outcome


def _wake(future: asyncio.Future[int], outcome: int) -> None:
    if not future.done():
        future.set_result(outcome)


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[int]) -> None:
    """From another thread, to a loop that may have gone."""
    with contextlib.suppress(RuntimeError):  # the loop was closed
        loop.call_soon_threadsafe(_wake, future, READ)
