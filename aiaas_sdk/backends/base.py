"""What the author of a backend writes against.

A backend is one class. Subclass `LocalBackend` for a model in this process: plain functions, no `async`.
Subclass `RemoteBackend` for a model behind an endpoint: one flow for each verb, which sends requests with
`yield from self.send(call, request)` and holds no client. Whether a verb can be done is told by whether the
class has a method of that name.

    class Double(LocalBackend):
        def open(self) -> ModelInfo:
            return ModelInfo(name="double", inputs=(TensorSpec("x", "FP32", (-1, 3)),), ...)

        def predict(self, inputs, outputs):
            return {"y": Tensor("FP32", inputs["x"].array * 2)}
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from aiaas_sdk.address import Address
from aiaas_sdk.backends.credentials import Credentials
from aiaas_sdk.errors import (
    AiaasError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Effect, Emit, Flow, Open, Reply, Request, Run, Send, read
from aiaas_sdk.observing import passed_on
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.runs import Here
from aiaas_sdk.wire.status import status_error
from aiaas_sdk.workers import Workers

if TYPE_CHECKING:
    from aiaas_sdk.records.training import Fit
    from aiaas_sdk.rows import Data

T = TypeVar("T")

__all__ = ["ATTEMPT", "TIMEOUT", "VERBS", "Backend", "LocalBackend", "RemoteBackend"]

ATTEMPT = "aiaas-attempt"
"""The header with the number of the attempt, from 1: a gateway that sees it leaves retrying to who sent it."""
TIMEOUT = "aiaas-timeout-ms"
"""The header with the milliseconds that are left of the call's deadline."""
TOGETHER = 0.1
"""Seconds before a call's deadline in which a peer that was told of it may be the first to say that it has passed."""
MAX_ERROR = 64 * 1024
"""Bytes of an error's body that are read."""
VERBS = ("predict", "generate", "stream", "embed", "explain", "fit")


class Backend:
    """What both kinds share. `options` holds only the options that were given for this model."""

    scheme: str = ""
    options_taken: ClassVar[frozenset[str]] = frozenset()
    """The engine options ("device", "api_key", ...) that mean something to this backend."""
    parallel: ClassVar[int] = 1
    """How many calls `map` keeps in flight at first unless it is told; 1 stays at one, from more on it is adapted."""
    explain_rows: ClassVar[int] = 8
    """How many rows `explain` is asked about at once; calls may take turns in between."""
    at_once: Callable[..., Any] | None = None
    """As `start`, with the same arguments, for a backend that can do the work in the caller's thread."""

    known: ModelInfo | None = None
    """What callers are told of the model; None before it is opened."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self.address = address
        self.options = options

    @classmethod
    def verbs(cls) -> frozenset[str]:
        """The verbs that this class has a method for; a model may be able to do fewer."""
        return frozenset(verb for verb in VERBS if getattr(cls, verb, None) is not None)

    def prepare(self) -> None:
        """Check, without network and without reading weights, that the address and options can work."""

    def opening(self, call: Call) -> Flow[ModelInfo]:
        """Open the model: read weights, or ask the endpoint what it serves."""
        raise NotImplementedError

    def readiness(self, call: Call) -> Flow[bool]:
        """Whether the opened model can serve now."""
        raise NotImplementedError

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        """The flow of one verb."""
        raise NotImplementedError

    def lacks(self, method: str) -> str | None:
        """What is missing for `explain` to be asked for this method, in words that follow its name; None for nothing.

        A backend without `explain` is asked for predictions alone. One that finds the method by itself lacks nothing
        for "auto".
        """
        return f"needs gradients, which {self.scheme}: doesn't give"

    def close(self) -> None:
        """Let go of what `opening` took; called once, after which nothing is called."""

    def able(self) -> frozenset[str]:
        """The verbs of the model, or before it is opened those of its class."""
        return self.verbs() if self.known is None else self.known.verbs

    def unsupported(self, verb: str) -> UnsupportedOperationError:
        can = ", ".join(sorted(self.able() - {verb})) or "nothing"
        return UnsupportedOperationError(
            f"{verb} isn't available for {self.address} (backend {self.scheme})", hint=f"It can {can}"
        )


class LocalBackend(Backend):
    """A model in this process. Verbs are plain functions; calls take turns in the model's slots.

    With a deadline, or from an event loop, a call runs in the model's worker thread; else in the caller's.
    """

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._size = int(options.get("concurrency", 1))
        self._threads = Workers(self._size, f"aiaas-{self.scheme}")
        self._free_slots()

    @property
    def slots(self) -> int:
        """Calls that may run at once: the option `concurrency`, or 1."""
        return self._size

    @property
    def workers(self) -> Workers:
        """The model's own threads, one a slot."""
        return self._threads

    def _free_slots(self) -> None:
        """All slots free: at first, and in a child process, where nobody would give back what the parent's calls took.

        A queue is a semaphore in C; threading's own costs 10 microseconds a call.
        """
        self._process = os.getpid()
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._size):
            self._slots.put(None)

    def open(self) -> ModelInfo:
        """Load the model (heavy imports belong here) and say what it is."""
        raise NotImplementedError

    def opening(self, call: Call) -> Flow[ModelInfo]:
        return (yield Run(partial(self._guarded, self.open), self._threads))  # type: ignore[no-any-return]

    def readiness(self, call: Call) -> Flow[bool]:
        """Not where one of its threads has died; asking starts another in its place."""
        yield from ()
        return not self._threads.mended()

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb == "stream":
            return (yield from self._streamed(call, *arguments))
        if call.verb == "fit" and getattr(self, "fit", None) is not None:
            return self._fitted(*arguments)
        return (yield Run(partial(self.at_once, call, *arguments), self._threads))

    def _streamed(self, call: Call, *arguments: Any) -> Flow[Any]:
        """`stream` is a generator of deltas that returns the whole; calls may take turns between its steps."""
        steps = yield Run(partial(self.at_once, call, *arguments), self._threads)
        try:
            while True:
                item, ended = yield Run(partial(self._in_a_slot, call, _stepped, steps), self._threads)
                if ended:
                    return item
                yield Emit(item)
        finally:
            with contextlib.suppress(ValueError):  # it is at work still, in its thread, and ends with that step
                steps.close()

    def _fitted(self, fit: Fit, data: Data) -> Here:
        """A run in a thread of its own: it takes no slot, and calls go on meanwhile.

        The verb is `fit(fit, data, told, stopped) -> str | None`: it tells events as `told({...})`, ends soon once
        `stopped()` says so, and gives the address of the new version, or None where it was stopped.
        """
        work: Any = self.fit  # type: ignore[attr-defined]
        return Here(partial(self._guarded, work, fit, data)).begin()

    def at_once(self, call: Call, *arguments: Any) -> Any:
        verb = getattr(self, call.verb, None)
        if verb is None:
            raise self.unsupported(call.verb)
        return self._in_a_slot(call, verb, *arguments)

    def _in_a_slot(self, call: Call, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._process != os.getpid():
            self._free_slots()
        asked = time.perf_counter()
        slots = self._slots
        slots.get()
        begun = time.perf_counter()
        try:
            return work(*arguments)
        except (Exception, SystemExit) as error:  # a model that calls sys.exit() has failed; its server hasn't
            if isinstance(error, AiaasError | MemoryError):
                raise
            raise self._told(error) from error
        finally:
            slots.put(None)
            ended = time.perf_counter()
            call.queue, call.compute = (call.queue or 0.0) + begun - asked, (call.compute or 0.0) + ended - begun

    def _guarded(self, work: Any, *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception as error:
            if isinstance(error, AiaasError | MemoryError):
                raise
            raise self._told(error) from error

    def _told(self, error: BaseException) -> ModelError:
        """No exception of the model's own libraries goes up as it is."""
        return ModelError(
            f"{self.address} raised {type(error).__name__}: {_first_line(error)}",
            hint="The model's own code failed; the original error is this one's __cause__",
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False)


class RemoteBackend(Backend):
    """A model behind an endpoint. Each verb is a flow; `send` applies the policies and maps failures."""

    parallel: ClassVar[int] = 4
    idempotent: ClassVar[frozenset[str]] = frozenset(("open", "ready", "predict", "embed", "explain"))
    """The verbs that may be sent again although the first try could have been carried out."""

    credential: ClassVar[tuple[str, str]] = ("authorization", "Bearer")
    """The header that carries the key, and the scheme before it ("" for none)."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._credentials = Credentials(options, *self.credential)

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        verb = getattr(self, call.verb, None)
        if verb is None:
            raise self.unsupported(call.verb)
        return verb(call, *arguments)  # type: ignore[no-any-return]

    def send(self, call: Call, request: Request) -> Flow[Reply]:
        """Send through the call's policies. The reply's status is a success, or an error is raised.

        The options `headers` and `api_key` are added to the request, whose own headers need hold no credential.
        """
        return call.around(call, self._prepared(call, request), self._attempt)  # type: ignore[no-any-return]

    def open_stream(self, call: Call, request: Request, consume: Callable[[Reply], Flow[T]]) -> Flow[T]:
        """As `send`, and hand the opened reply to `consume`, which reads it, emits what comes and returns the whole.

        All of that is inside of the policies: a failure before the first content may be tried again, so `consume`
        raises StreamInterruptedError for one after that.
        """
        return call.around(call, self._prepared(call, request), partial(self._streaming, consume))  # type: ignore[no-any-return]

    def effect(self, request: Request, timeout: float | None) -> Effect:
        """What sends one request and gives its `Reply`: HTTP, unless a backend has a protocol of its own.

        Args:
            timeout: seconds for this one attempt; None for no limit but the call's own deadline.
        """
        return Send(request, timeout)

    def opened(self, request: Request, timeout: float | None) -> Effect:
        """As `effect`, for a reply that is read piece by piece: what it gives has a `handle`."""
        return Open(request, timeout)

    def _prepared(self, call: Call, request: Request) -> Request:
        call.target, call.before = str(self.address), call.attempts
        return request if call.verb in self.idempotent else replace(request, idempotent=False)

    def _attempt(self, call: Call, request: Request) -> Flow[Reply]:
        return self._accepted(self.effect, call, request)

    def _streaming(self, consume: Callable[[Reply], Flow[T]], call: Call, request: Request) -> Flow[T]:
        reply = yield from self._accepted(self.opened, call, request)
        try:
            return (yield from consume(reply))
        except (DeadlineExceededError, ConnectionError) as error:
            _tell(error, request)
            raise self._explained(error) from error.__cause__

    def _accepted(self, effect: Callable[..., Effect], call: Call, request: Request) -> Flow[Reply]:
        call.attempts += 1
        exchange = partial(self._exchange, effect, call)
        try:
            reply = yield from self._credentials.sending(_travelling(call, request), exchange)
            if not 200 <= reply.status < 300:
                raise self.refused(call, reply)
        except AiaasError as error:
            _tell(error, request)
            raise
        return reply

    def _exchange(self, effect: Callable[..., Effect], call: Call, request: Request) -> Flow[Reply]:
        begun = time.perf_counter()
        try:
            reply: Reply = yield effect(request, call.attempt_timeout)
            if reply.handle is not None and not 200 <= reply.status < 300:
                reply.body = yield from _error_body(reply, call.attempt_timeout)
        except (DeadlineExceededError, ConnectionError) as error:
            raise self._explained(error) from error.__cause__
        finally:
            call.network = (call.network or 0.0) + time.perf_counter() - begun
        return reply

    def refused(self, call: Call, reply: Reply) -> AiaasError:
        """The error for a reply that is no success."""
        if reply.status == 504 and call.deadline is not None and call.deadline - time.monotonic() < TOGETHER:
            return DeadlineExceededError("the call ran out of time, and the peer said so first", retryable=False)
        error = status_error(reply.status, reply.headers, reply.body, verb=call.verb in VERBS)
        if reply.status == 401 and isinstance(error, AiaasError) and error.hint is None:
            error.hint = self._credentials.hint
        return error

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, AiaasError) and error.address is None:
            error.address = str(self.address)
        return error


def _tell(error: Exception, request: Request) -> None:
    """Let the error say so, where nobody knows whether the peer has done what mustn't be done twice."""
    if isinstance(error, AiaasError) and not request.idempotent and _unknown(error):
        error.hint = error.hint or "The outcome is unknown: it may have been done, so it isn't sent again"


def _unknown(error: AiaasError) -> bool:
    """Whether the peer may have done what it was asked; 429, 503 and other refusals say that it hasn't."""
    return isinstance(error, ConnectionLostError | DeadlineExceededError) or error.status in (408, 500, 502, 504)


def _error_body(reply: Reply, seconds: float | None) -> Flow[bytes]:
    """The beginning of an opened reply's body, as much as an error may say."""
    pieces, size = [], 0
    while size < MAX_ERROR and (piece := (yield from read(reply, seconds))):
        pieces.append(bytes(piece))
        size += len(piece)
    return b"".join(pieces)[:MAX_ERROR]


def _stepped(steps: Generator[Any, None, Any]) -> tuple[Any, bool]:
    """The next item of a generator, or what it returns, and whether that was its end."""
    try:
        return next(steps), False
    except StopIteration as stop:
        return stop.value, True


def _travelling(call: Call, request: Request) -> Request:
    """The request with what the peer should know of the call: which attempt this is, and how long it is waited for."""
    headers = {**passed_on(), **(call.headers or {}), **request.headers, ATTEMPT: str(call.tries)}
    if call.deadline is not None:
        headers[TIMEOUT] = str(max(0, round(1000 * (call.deadline - time.monotonic()))))
    # field by field, a microsecond quicker than `replace`
    return Request(
        request.method, request.url, headers, request.body, request.idempotent, request.align, request.network
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else "no message")[:300]
