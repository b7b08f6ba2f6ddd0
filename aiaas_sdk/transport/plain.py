"""The sender of the plain face: the steps, performed in the calling thread."""

from __future__ import annotations

import math
import select
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Begun, Buffer, Reply, Request
from aiaas_sdk.transport.connection import Connection
from aiaas_sdk.transport.courier import Courier, failed, reading
from aiaas_sdk.transport.steps import READ, WRITE, Awaited, Ready, Settled, Step, Steps, left
from aiaas_sdk.transport.threads import started

if TYPE_CHECKING:
    from aiaas_sdk.transport.awaited import AsyncHttpSender

__all__ = ["HttpSender", "in_threads", "perform", "wait_ready"]

T = TypeVar("T")


class HttpSender:
    """Sends from any thread; after a fork the child makes its own connections."""

    def __init__(self) -> None:
        self._courier = Courier()

    def send(self, request: Request, until: float | None) -> Reply:
        """The whole reply. A kept connection that the peer had closed is replaced once, silently."""
        return perform(self._courier.send(request, until))

    def begin(self, request: Request, until: float | None, pause: float) -> Reply | Begun:
        """As `send`; what isn't over at the moment `pause` is given as it stands, for `awaited.finish`."""
        return begin(self._courier.send(request, until), pause)

    def open(self, request: Request, until: float | None) -> Reply:
        """The reply as far as its head."""
        return perform(self._courier.open(request, until))

    def read(self, reply: Reply, until: float | None) -> Buffer:
        """The next piece of an opened reply; empty at its end."""
        exchange = reading(reply)
        link, answer = exchange.link, exchange.answer
        if link is not None and not answer.pieces:
            if type(link) is not Connection:
                return perform(self._courier.read(reply, until))
            try:
                link.receive(answer, until, wait_ready)
            except BaseException as error:
                failed(exchange, error)
        return self._courier.received(exchange)

    def release(self, reply: Reply) -> None:
        """Give back an opened reply's connection."""
        perform(self._courier.release(reply))

    def close(self) -> None:
        """Close the kept connections; harmless when done twice."""
        self._courier.close()

    @property
    def awaited(self) -> AsyncHttpSender:
        """The sender for event loops over the same connections; `close` of either closes them for both."""
        from aiaas_sdk.transport.awaited import AsyncHttpSender

        return AsyncHttpSender(self._courier)


class _Paused(BaseException):  # no failure
    """The moment came; `step` is what was still waited for."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step


def perform(steps: Steps[T]) -> T:
    """Carry out steps in this thread, waiting where they wait."""
    return _carried_out(steps, _wait)  # type: ignore[return-value]  # this wait doesn't pause


def begin(steps: Steps[T], pause: float) -> T | Begun:
    """As `perform`; of steps that aren't over at the moment `pause`, what is left of them is given."""
    return _carried_out(steps, partial(_wait_until, pause))


def _carried_out(steps: Steps[T], wait: Callable[[Step], Any]) -> T | Begun:
    try:  # one for the whole of it: wherever Ctrl-C comes, the steps are ended and clean up
        step = next(steps)
        while True:
            try:
                outcome = wait(step)
            except _Paused as paused:
                return Begun((steps, paused.step))
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except BaseException:
        steps.close()
        raise


def _wait(step: Step) -> Any:
    if type(step) is Ready:
        return wait_ready(step)
    step = in_threads(step)
    assert type(step) is Settled
    return step.future.result(left(step.until))


def _wait_until(pause: float, step: Step) -> Any:
    """As `_wait`; raises `_Paused` where that moment comes first."""
    step = in_threads(step)
    if step.until is not None and step.until <= pause:
        return _wait(step)
    try:
        return _wait(step._replace(until=pause))
    except TimeoutError:
        if type(step) is Settled and step.future.done():
            return step.future.result()  # it may have failed with a TimeoutError of its own
    raise _Paused(step)


def in_threads(step: Step) -> Step:
    """A step that asks for an event loop, as one that does without."""
    if type(step) is not Awaited:
        return step
    if step.otherwise is None:
        raise ConfigError("network.transport is for event loops only", hint="Load it by load_async")
    return Settled(started(step.otherwise), step.until)


class _Last(threading.local):
    """What this thread waited for last. Mostly the next wait is for the same, and a poll object is only a list."""

    fd = want = -1
    poll: select.poll


_last = _Last()


def _poll(step: Ready) -> int:
    """Which of what is wanted the socket can do. Raises TimeoutError."""
    seconds, last = left(step.until), _last
    if last.fd != step.fd or last.want != step.want:
        asked = (select.POLLIN if step.want & READ else 0) | (select.POLLOUT if step.want & WRITE else 0)
        poll = select.poll()
        poll.register(step.fd, asked)
        last.fd, last.want, last.poll = step.fd, step.want, poll
    # rounded up: a wait of 0 ms would come back too early, again and again
    found = last.poll.poll(None if seconds is None else math.ceil(seconds * 1000))
    if not found:
        raise TimeoutError
    events = found[0][1]
    if events & ~(select.POLLIN | select.POLLOUT):  # hung up or failed: reading or writing tells
        return step.want
    return (READ if events & select.POLLIN else 0) | (WRITE if events & select.POLLOUT else 0)


def _select(step: Ready) -> int:
    """The same where there is no poll (Windows); a failed connection shows as exceptional there."""
    seconds = left(step.until)
    readers, writers = [step.fd] if step.want & READ else [], [step.fd] if step.want & WRITE else []
    readable, writable, failed = select.select(readers, writers, writers, seconds)
    if not (readable or writable or failed):
        raise TimeoutError
    return (READ if readable else 0) | (WRITE if writable or failed else 0)


wait_ready = _poll if hasattr(select, "poll") else _select
