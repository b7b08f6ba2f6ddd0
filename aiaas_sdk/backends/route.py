"""A list of addresses as one model: the first that can serve a call answers it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiaas_sdk.address import Address
from aiaas_sdk.backends.base import Backend
from aiaas_sdk.errors import (
    AiaasError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelNotFoundError,
    ModelNotReadyError,
    RateLimitedError,
    StreamInterruptedError,
    UnavailableError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Emit, Flow
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo

PASSED_ON = (
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelNotFoundError,
    ModelNotReadyError,
    RateLimitedError,
    StreamInterruptedError,
    UnavailableError,
    UnsupportedOperationError,
)
"""Failures that say "not here, not now". A model that raised, or input that doesn't fit, fails everywhere."""
REST = 5.0
"""Seconds for which a member that failed is asked last."""


@dataclass(slots=True)
class _Member:
    backend: Backend
    info: ModelInfo | None = None
    failed_at: float = float("-inf")


class Begun:
    """Whether a stream has given content; `noting` is the same flow, looked at."""

    content = False

    def noting(self, flow: Flow[Any]) -> Flow[Any]:
        try:
            effect = next(flow)
            while True:
                self.content = self.content or type(effect) is Emit
                try:
                    outcome = yield effect
                except GeneratorExit:
                    flow.close()
                    raise
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as stop:
            return stop.value


class RouteBackend(Backend):
    """Tries its members in their order; those that failed in the last 5 seconds come after the others.

    All members must take and give the same: a member with another signature than the first one that opened is
    refused with ConfigError.
    """

    scheme = "route"

    def __init__(self, address: Address, options: Mapping[str, Any], members: Sequence[Backend] = ()) -> None:
        super().__init__(address, options)
        self._members = [_Member(member) for member in members]
        self.parallel = members[0].parallel if members else 1  # type: ignore[misc]  # as its first member
        self._info: ModelInfo | None = None

    def prepare(self) -> None:
        if not self._members:
            raise ConfigError("a route needs addresses", hint='Load a list: load(["https://...", "torch:..."])')

    def able(self) -> frozenset[str]:
        return super().able().union(*(member.backend.verbs() for member in self._members))

    # ------------------------------------------------------------ flows
    def opening(self, call: Call) -> Flow[ModelInfo]:
        info: ModelInfo = yield from self._first(call, self._opened)
        return info

    def readiness(self, call: Call) -> Flow[bool]:
        for member in self._in_order():
            try:
                yield from self._opened(call, member)
                if (yield from member.backend.readiness(call)):
                    return True
            except PASSED_ON:
                continue
        return False

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if not any(call.verb in member.backend.verbs() for member in self._members):
            raise self.unsupported(call.verb)

        def attempt(call: Call, member: _Member) -> Flow[Any]:
            info = yield from self._opened(call, member)
            answer = yield from member.backend.start(call, *arguments)
            call.backend = call.backend or member.backend.scheme
            call.version = call.version or info.version
            return answer

        return self._first(call, attempt)

    def _first(self, call: Call, attempt: Any) -> Flow[Any]:
        failures: list[AiaasError] = []
        for member in self._in_order():
            call.backend = call.version = None
            begun = Begun()
            try:
                answer = yield from begun.noting(attempt(call, member))
            except (*PASSED_ON, StreamInterruptedError) as error:
                if begun.content or (isinstance(error, StreamInterruptedError) and error.partial):
                    raise  # two models' words in one answer would be neither's
                member.failed_at = time.monotonic()
                failures.append(error.locate(address=str(member.backend.address)))
                continue
            member.failed_at = float("-inf")
            return answer
        raise self._told(failures)

    def _told(self, failures: Sequence[AiaasError]) -> AiaasError:
        """The last failure, with what the others said."""
        last = failures[-1]
        if len(failures) > 1:
            others = "; ".join(f"{error.address}: {error.message}" for error in failures[:-1])
            last.hint = f"None of the route could serve; before it, {others}" + (f". {last.hint}" if last.hint else "")
        return last

    def _in_order(self) -> list[_Member]:
        now = time.monotonic()
        return sorted(self._members, key=lambda member: now - member.failed_at < REST)

    def _opened(self, call: Call, member: _Member) -> Flow[ModelInfo]:
        if member.info is None:
            info = yield from member.backend.opening(call)
            self._check_alike(info, member.backend.address)
            member.info = info
        return member.info

    def _check_alike(self, info: ModelInfo, address: Address) -> None:
        if self._info is None:
            self._info = info
            return
        for mine, theirs in ((self._info.inputs, info.inputs), (self._info.outputs, info.outputs)):
            known = {spec.name: (spec.datatype, len(spec.shape)) for spec in mine}
            other = {spec.name: (spec.datatype, len(spec.shape)) for spec in theirs}
            if known and other and known != other:
                raise ConfigError(
                    f"{address} takes or gives something else ({other}) than the rest of the route ({known})",
                    hint="A route's models have one signature",
                )

    def close(self) -> None:
        for member in self._members:
            member.backend.close()


@hookimpl
def aiaas_backend(scheme: str) -> type[RouteBackend]:
    return RouteBackend
