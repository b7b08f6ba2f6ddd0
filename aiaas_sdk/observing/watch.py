"""One call, from its start to its end, told to the observers that want it."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.observing.observers import Observer, wanted
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.events import AttemptEvent, CallEvent
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor

__all__ = ["Watch", "watched", "watching"]

T = TypeVar("T")
Proceed = Callable[[Call, Request], Flow[Reply]]
_put = object.__setattr__  # an event is frozen for all others

_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Asked(Protocol):
    """What is said of the backend that a call asks."""

    scheme: str
    address: Any


def watching(call: Call, backend: Asked, info: ModelInfo | None) -> Watch | None:
    """The watch of a call that begins; None where nobody wants it."""
    observers = wanted()
    if not observers:
        return None
    event = CallEvent(call, str(backend.address), scheme=backend.scheme, version=info.version if info else None)
    return Watch(call, event, observers)


def watched(call: Call, backend: Asked, info: ModelInfo | None, flow: Flow[T]) -> Flow[T]:
    """The flow of a call that takes no tensors, with observers told of its start and its end."""
    watch = watching(call, backend, info)
    if watch is None:
        return (yield from flow)
    failed = True
    try:
        watch.start({})
        result = yield from flow
        failed = False
        return result
    finally:
        watch.finish(failed)


class Watch:
    """Tells the observers of one call. Those that hear of its start hear of its end, whoever comes and goes."""

    __slots__ = ("_around", "_attempts", "_begun", "_call", "_event", "_observers")

    def __init__(self, call: Call, event: CallEvent, observers: Sequence[Observer]) -> None:
        self._call, self._event, self._observers = call, event, observers
        self._begun = time.perf_counter()
        self._around: Any = None
        self._attempts = 0

    def start(self, inputs: Mapping[str, Tensor]) -> None:
        """The backend is asked next, with these."""
        specs = tuple(TensorSpec(name, tensor.datatype, tensor.shape) for name, tensor in inputs.items())
        _put(self._event, "inputs", specs)
        _put(self._event, "input_bytes", _size(specs))
        self._around, self._call.around = self._call.around, self._send
        for observer in self._observers:
            for headers in observer.tell("aiaas_call_started", call=self._event):
                self._take(observer, headers)

    def _take(self, observer: Observer, headers: Mapping[str, str]) -> None:
        """Headers for the call's requests; such as HTTP can't carry would make the call fail, and are left out."""
        try:
            taken = {name.lower(): value for name, value in headers.items()}
            for name, value in taken.items():
                if not (_HEADER.fullmatch(name) and _VALUE.fullmatch(value)):
                    raise ValueError(f"the header {name[:80]!r} can't be sent")
        except Exception as error:
            observer.failed("aiaas_call_started", error)
        else:
            self._call.headers = {**(self._call.headers or {}), **taken}

    def _send(self, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        """As a policy outside all others, to see what goes on inside the innermost."""
        return self._around(call, request, partial(self._attempt, proceed))  # type: ignore[no-any-return]

    def _attempt(self, proceed: Proceed, call: Call, request: Request) -> Flow[Reply]:
        self._attempts += 1
        number, begun, status = self._attempts, time.perf_counter(), None
        try:
            reply = yield from proceed(call, request)
            status = reply.status
            return reply
        finally:
            seconds = time.perf_counter() - begun
            raised = _raised() if status is None else None
            attempt = AttemptEvent(
                number=number,
                seconds=seconds,
                status=getattr(raised, "status", status),
                error=None if raised is None else type(raised).__name__,
            )
            self._tell("aiaas_attempt_finished", attempt=attempt)

    def finish(self, failed: bool) -> None:
        """The call is over. Where it failed, this is called while what it raised is being handled."""
        if self._around is None:  # refused before the backend could be asked
            self.start({})
        self._call.around = self._around  # the call keeps no way back to this
        raised = _raised() if failed else None
        if raised is not None:
            self._call.total = time.perf_counter() - self._begun
            _put(self._event, "status", getattr(raised, "status", None))
            _put(self._event, "error", type(raised).__name__)
        elif not self._call.total:
            self._call.total = time.perf_counter() - self._begun
        self._tell("aiaas_call_finished", error=self._event.error)

    def _tell(self, hook: str, **facts: Any) -> None:
        for observer in self._observers:
            observer.tell(hook, call=self._event, **facts)


def _raised() -> BaseException | None:
    """What is being handled. A flow that its driver closes gets GeneratorExit, for what the driver itself handles."""
    error = sys.exc_info()[1]
    return (error.__context__ or error) if isinstance(error, GeneratorExit) else error


def _size(specs: Sequence[TensorSpec]) -> int | None:
    total = 0
    for spec in specs:
        size = DATATYPES[spec.datatype].size
        if size is None:
            return None
        total += size * math.prod(spec.shape)
    return total if specs else None
