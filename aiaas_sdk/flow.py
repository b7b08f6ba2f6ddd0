"""Operations as data, and the two drivers that carry them out.

An operation is a *flow*: a generator that yields an `Effect`, is sent the effect's result, and returns its
own. A failed effect is thrown into it. A flow never blocks, never closes what was opened and holds no lock
across a `yield`: what a driver opened, the driver closes.

    def fetch(url: str) -> Flow[bytes]:
        reply = yield from send(Request("GET", url))     # the driver performs it, here or in an event loop
        return bytes(reply.body)

    drive(fetch(url), sender)                             # plain Python
    await adrive(fetch(url), async_sender)                # the same flow under asyncio

The deadline is the driver's: each effect gets the time that is left, and a sleep past it fails at once.
Times are `time.monotonic()` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from aiaas_sdk.errors import DeadlineExceededError
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.network import Network

__all__ = [
    "AsyncSender",
    "AsyncStream",
    "Begun",
    "Buffer",
    "Compound",
    "Effect",
    "Emit",
    "Flow",
    "Open",
    "Read",
    "Reply",
    "Request",
    "Run",
    "Send",
    "Sender",
    "Sleep",
    "Stream",
    "Wait",
    "adrive",
    "drive",
    "emit",
    "nearest",
    "open_reply",
    "read",
    "run",
    "send",
    "sleep",
    "unanswered",
    "wait",
    "within",
]

T = TypeVar("T")
logger = logging.getLogger("aiaas_sdk.flow")
logging.getLogger("aiaas_sdk").addHandler(logging.NullHandler())  # or warnings would go to stderr unasked

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes on the way; a memoryview is one-dimensional, of format "B" and contiguous."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `body` travels as its parts, one after the other, without being joined first.

    `align` names a reply header that holds a byte count: the reply's body is placed in memory so that what
    lies behind that many bytes starts at a multiple of 64. `network` says how the peer is reached. A header's value
    is hidden where it may be a credential; only the transport reveals it.
    """

    method: str
    url: str
    headers: Mapping[str, str | Hidden] = field(default_factory=dict)
    body: tuple[Buffer, ...] = field(default=(), repr=False)
    idempotent: bool = True
    align: str | None = None
    network: Network | None = None


@dataclass(slots=True)
class Reply:
    """One HTTP reply; header names are lower case. `body` is whole unless it was opened (`handle` is set)."""

    status: int
    headers: Mapping[str, str]
    body: Buffer = field(default=b"", repr=False)
    handle: Any = None


# The effects aren't frozen, though nobody changes one: Python makes a frozen object at half the speed.
@dataclass(slots=True)
class Send:
    """Send the request and read the whole reply: gives a `Reply`. `timeout` bounds this one attempt (s)."""

    request: Request
    timeout: float | None = None


@dataclass(slots=True)
class Open:
    """Send the request and read the reply's head only: gives a `Reply` to `Read` from."""

    request: Request
    timeout: float | None = None


@dataclass(slots=True)
class Read:
    """The next piece of an opened reply; empty at its end. `timeout` bounds the wait for it (s)."""

    reply: Reply
    timeout: float | None = None


@dataclass(slots=True)
class Sleep:
    """Pause."""

    seconds: float


@dataclass(slots=True)
class Run:
    """Blocking work. Without a deadline a sync driver does it in place, else the executor's thread does."""

    work: Callable[[], Any]
    executor: Executor | None = None


@dataclass(slots=True)
class Wait:
    """Until somebody sets the future's result, which it gives. `what` says in an error what was waited for, and
    `timeout` bounds the wait (s).

    Whoever yields it cancels the future when the wait fails, and looks whether it had been set all the same.
    """

    future: Future[Any]
    what: str
    timeout: float | None = None


class Compound:
    """An effect that is made of others, such as a race: it knows itself how it is performed."""

    __slots__ = ()

    def perform(self, sender: Sender, deadline: float | None) -> Any:
        raise NotImplementedError

    async def aperform(self, sender: AsyncSender, deadline: float | None) -> Any:
        raise NotImplementedError


@dataclass(slots=True)
class Emit:
    """Hand one item to whoever iterates the stream."""

    item: Any


Effect: TypeAlias = Send | Open | Read | Sleep | Run | Wait | Compound | Emit
Flow: TypeAlias = Generator[Effect, Any, T]


# The effects, typed for `yield from`. The driver sends back exactly what each promises, hence the ignores.
def send(request: Request, timeout: float | None = None) -> Flow[Reply]:
    return (yield Send(request, timeout))  # type: ignore[no-any-return]


def open_reply(request: Request, timeout: float | None = None) -> Flow[Reply]:
    return (yield Open(request, timeout))  # type: ignore[no-any-return]


def read(reply: Reply, timeout: float | None = None) -> Flow[Buffer]:
    return (yield Read(reply, timeout))  # type: ignore[no-any-return]


def sleep(seconds: float) -> Flow[None]:
    yield Sleep(seconds)


def run(work: Callable[[], T], executor: Executor | None = None) -> Flow[T]:
    return (yield Run(work, executor))  # type: ignore[no-any-return]


def wait(future: Future[T], what: str, timeout: float | None = None) -> Flow[T]:
    return (yield Wait(future, what, timeout))  # type: ignore[no-any-return]


def emit(item: Any) -> Flow[None]:
    yield Emit(item)


@dataclass(slots=True)
class Begun:
    """A request that a plain sender has begun. `rest` is for its awaited twin alone."""

    rest: Any


class Sender(Protocol):
    """Performs requests. `until` is the moment (monotonic) by which each step must be over, None for never.

    Past it `DeadlineExceededError` is raised, within 50 ms, whatever the peer does. `awaited` is its twin over the
    same connections.
    """

    @property
    def awaited(self) -> AsyncSender: ...

    def send(self, request: Request, until: float | None) -> Reply: ...

    def begin(self, request: Request, until: float | None, pause: float) -> Reply | Begun:
        """As `send`; what isn't over at the moment `pause` (monotonic) is given as it stands, for the twin's `finish`.

        Who lets go of it ends the request.
        """
        ...

    def open(self, request: Request, until: float | None) -> Reply: ...
    def read(self, reply: Reply, until: float | None) -> Buffer: ...
    def release(self, reply: Reply) -> None: ...


class AsyncSender(Protocol):
    """The awaited twin of `Sender`."""

    async def send(self, request: Request, until: float | None) -> Reply: ...

    async def finish(self, begun: Begun) -> Reply:
        """The reply to a request that the plain twin began, by the moment `until` that was given there."""
        ...

    async def open(self, request: Request, until: float | None) -> Reply: ...
    async def read(self, reply: Reply, until: float | None) -> Buffer: ...
    async def release(self, reply: Reply) -> None: ...


def nearest(deadline: float | None, timeout: float | None) -> float | None:
    """The nearer of the call's deadline and this effect's own limit; raises when the deadline is past."""
    if deadline is None:
        return None if timeout is None else time.monotonic() + timeout
    now = time.monotonic()
    if now >= deadline:
        raise DeadlineExceededError("the call ran out of time", retryable=False)
    return deadline if timeout is None else min(deadline, now + timeout)


def within(deadline: float | None, seconds: float) -> float:
    """The seconds of a pause; raises when it would end after the deadline."""
    until = nearest(deadline, None)
    if until is not None and time.monotonic() + seconds > until:
        raise DeadlineExceededError(f"the next pause of {seconds:.2f} s would end after the deadline", retryable=False)
    return seconds


def unanswered(what: str) -> DeadlineExceededError:
    """For a `Wait` whose time is up."""
    return DeadlineExceededError(f"the call ran out of time waiting for {what}", retryable=False)


def _abandon(future: Future[Any]) -> None:
    """The caller has gone; a forward pass can't be stopped. Its outcome is logged once, when it comes."""
    if not future.cancel():
        future.add_done_callback(_log_late)


def _log_late(future: Future[Any]) -> None:
    if future.cancelled():
        return
    if (error := future.exception()) is not None:
        logger.warning("abandoned work failed after its deadline: %s", type(error).__name__)
    else:
        logger.warning("abandoned work ended after its deadline; its result was dropped")


def _too_slow() -> DeadlineExceededError:
    return DeadlineExceededError(
        "the model was still computing at the deadline",
        hint="Its slot stays taken until it ends; raise timeout= or send fewer rows",
    )


_END = object()


class Stream(Generic[T]):
    """One running flow. Iterating it performs effects up to the next `Emit`; `result` is set at its end."""

    __slots__ = ("_deadline", "_flow", "_opened", "_outcome", "_sender", "result")

    def __init__(self, flow: Flow[Any], sender: Sender, deadline: float | None = None) -> None:
        self._flow, self._sender, self._deadline = flow, sender, deadline
        self._opened: Reply | None = None
        self._outcome: Any = None
        self.result: Any = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.advance()
        if item is _END:
            raise StopIteration
        return item  # type: ignore[no-any-return]

    def advance(self) -> Any:
        """Perform effects up to the next `Emit`, whose item it gives, or to the end of the flow (`_END`)."""
        step: Callable[[Any], Effect] = self._flow.send
        try:
            while True:
                effect = step(self._outcome)
                self._outcome = None
                if type(effect) is Emit:
                    return effect.item
                try:
                    if type(effect) is Read:  # not by _perform: there is one for each piece of a stream
                        self._outcome = self._sender.read(effect.reply, nearest(self._deadline, effect.timeout))
                    else:
                        self._outcome = self._perform(effect)
                    step = self._flow.send
                except Exception as error:
                    self._outcome, step = error, self._flow.throw
        except StopIteration as stop:
            self.result = stop.value
            if self._opened is not None:
                self._release()
            return _END
        except BaseException:
            self.close()
            raise

    def _perform(self, effect: Effect) -> Any:
        if type(effect) is Run:  # ahead of the match, which costs a quick local model a tenth of its overhead
            return self._run(effect.work, effect.executor)
        match effect:
            case Send(request, timeout):
                return self._sender.send(request, nearest(self._deadline, timeout))
            case Open(request, timeout):
                self._release()
                self._opened = self._sender.open(request, nearest(self._deadline, timeout))
                return self._opened
            case Sleep(seconds):
                return time.sleep(within(self._deadline, seconds))
            case Wait(future, what, timeout):
                until = nearest(self._deadline, timeout)
                try:
                    return future.result(None if until is None else until - time.monotonic())
                except FutureTimeout:
                    raise unanswered(what) from None
            case Compound():
                return effect.perform(self._sender, self._deadline)
        raise TypeError(f"a flow yielded {type(effect).__name__}, which is no effect")

    def _run(self, work: Callable[[], Any], executor: Executor | None) -> Any:
        if self._deadline is None or executor is None:
            return work()
        until = nearest(self._deadline, None)
        assert until is not None
        future = executor.submit(work)
        try:
            return future.result(until - time.monotonic())
        except FutureTimeout:
            if future.done():
                raise
            _abandon(future)
            raise _too_slow() from None
        except KeyboardInterrupt:
            if not future.done():  # else it is the work's own
                _abandon(future)
            raise

    def _release(self) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self._sender.release(opened)

    def close(self) -> None:
        """End the flow and give its connection back; harmless when it has ended."""
        self._flow.close()
        self._release()

    def drop(self) -> None:
        """As `close`, for a finaliser: nothing comes out of it."""
        with contextlib.suppress(Exception):
            self.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """The awaited twin of `Stream`."""

    __slots__ = ("_deadline", "_flow", "_opened", "_outcome", "_sender", "result")

    def __init__(self, flow: Flow[Any], sender: AsyncSender, deadline: float | None = None) -> None:
        self._flow, self._sender, self._deadline = flow, sender, deadline
        self._opened: Reply | None = None
        self._outcome: Any = None
        self.result: Any = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = await self.advance()
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return]

    async def advance(self) -> Any:
        """The awaited twin of `Stream.advance`."""
        step: Callable[[Any], Effect] = self._flow.send
        try:
            while True:
                effect = step(self._outcome)
                self._outcome = None
                if type(effect) is Emit:
                    return effect.item
                try:
                    if type(effect) is Read:
                        self._outcome = await self._sender.read(effect.reply, nearest(self._deadline, effect.timeout))
                    else:
                        self._outcome = await self._perform(effect)
                    step = self._flow.send
                except Exception as error:
                    self._outcome, step = error, self._flow.throw
        except StopIteration as stop:
            self.result = stop.value
            if self._opened is not None:
                await self._release()
            return _END
        except BaseException:
            await self.aclose()
            raise

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(work, executor):
                return await self._run(work, executor)
            case Send(request, timeout):
                return await self._sender.send(request, nearest(self._deadline, timeout))
            case Open(request, timeout):
                await self._release()
                self._opened = await self._sender.open(request, nearest(self._deadline, timeout))
                return self._opened
            case Sleep(seconds):
                return await asyncio.sleep(within(self._deadline, seconds))
            case Wait(future, what, timeout):
                until = nearest(self._deadline, timeout)
                # wait() and not wait_for(), which may lose a result that comes together with a cancellation
                waiting = asyncio.wrap_future(future)
                if not (await asyncio.wait({waiting}, timeout=None if until is None else until - time.monotonic()))[0]:
                    raise unanswered(what)
                return waiting.result()
            case Compound():
                return await effect.aperform(self._sender, self._deadline)
        raise TypeError(f"a flow yielded {type(effect).__name__}, which is no effect")

    async def _run(self, work: Callable[[], Any], executor: Executor | None) -> Any:
        until = nearest(self._deadline, None)
        loop = asyncio.get_running_loop()
        future = executor.submit(work) if executor is not None else None
        if future is None:
            return await loop.run_in_executor(None, work)
        waiting = asyncio.wrap_future(future, loop=loop)
        try:
            # wait() and not wait_for(): a wait that is given up must not cancel work that is running
            done, _ = await asyncio.wait({waiting}, timeout=None if until is None else until - time.monotonic())
        except asyncio.CancelledError:
            waiting.add_done_callback(_retrieve)
            _abandon(future)
            raise
        if not done:
            waiting.add_done_callback(_retrieve)
            _abandon(future)
            raise _too_slow()
        return waiting.result()

    async def _release(self) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await self._sender.release(opened)

    async def aclose(self) -> None:
        """End the flow and give its connection back; harmless when it has ended."""
        self._flow.close()
        await self._release()

    def drop(self) -> None:
        """As `aclose`, for a finaliser: without a loop, and nothing comes out of it."""
        with contextlib.suppress(Exception):
            self._flow.close()
        self._opened = None  # a reply that nobody holds closes its connection

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Marks an abandoned outcome as seen, or asyncio complains about it at exit."""
    if not future.cancelled():
        future.exception()


def drive(flow: Flow[T], sender: Sender, deadline: float | None = None) -> T:
    """Perform a flow that emits nothing, to its end."""
    stream: Stream[Any] = Stream(flow, sender, deadline)  # not Stream[Any](...), which costs a microsecond
    if stream.advance() is not _END:
        stream.close()
        raise TypeError("a flow that should only return emitted an item")
    return stream.result  # type: ignore[no-any-return]


async def adrive(flow: Flow[T], sender: AsyncSender, deadline: float | None = None) -> T:
    """The awaited twin of `drive`."""
    stream: AsyncStream[Any] = AsyncStream(flow, sender, deadline)
    if await stream.advance() is not _END:
        await stream.aclose()
        raise TypeError("a flow that should only return emitted an item")
    return stream.result  # type: ignore[no-any-return]
