"""`Hedge` at work: while one request is slow, a second one; the first answer wins."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter

from aiaas_sdk.errors import RateLimitedError
from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.policies.shared import Shared
from aiaas_sdk.policies.tokens import tokens_of
from aiaas_sdk.racing import race
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Hedge
from aiaas_sdk.transport.origin import origin_of

__all__ = ["HedgePolicy", "Seen"]

Proceed = Callable[[Call, Request], Flow[Reply]]

COST = 14.0
"""Tokens of the retry budget for one more request, as for a retry."""
KEPT, ENOUGH, SHARE = 100, 20, 0.95
_facts = attrgetter(*(field.name for field in fields(Call)))  # a tenth of what copying takes


class Seen:
    """How long the last requests of an endpoint took that may be hedged."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        self._guard = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._guard:
            if len(self._latest) == KEPT:
                del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
            self._latest.append(seconds)
            insort(self._sorted, seconds)

    @property
    def slow(self) -> float | None:
        """Seconds in which 95 of 100 were done; None while too few have been seen."""
        with self._guard:
            if len(self._sorted) < ENOUGH:
                return None
            return self._sorted[int(SHARE * (len(self._sorted) - 1))]


class HedgePolicy:
    """Around the requests of one attempt."""

    _all: Shared[Seen] = Shared()

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._mine: dict[str, Seen] = {}

    def __call__(self, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        if not request.idempotent or call.verb in ("open", "ready"):
            return proceed(call, request)
        if self._hedge.delay is None:
            return self._learning(call, request, proceed)
        return self._hedged(call, request, proceed, self._hedge.delay)

    def _learning(self, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        seen = self._mine.get(call.target) or self._seen(call.target)
        delay, begun = seen.slow, time.monotonic()
        if delay is None:
            reply = yield from proceed(call, request)
        else:
            reply = yield from self._hedged(call, request, proceed, delay)
        seen.add(time.monotonic() - begun)
        return reply

    def _hedged(self, call: Call, request: Request, proceed: Proceed, delay: float) -> Flow[Reply]:
        further = [_Further(call, number) for number in range(1, self._hedge.requests)]
        flows = [proceed(call, request), *(one.flow(request, proceed) for one in further)]
        try:
            won, reply = yield from race(flows, delay)
        finally:
            for one in further:
                call.attempts += one.sent
        if won:
            further[won - 1].tell(call)
        return reply

    def _seen(self, target: str) -> Seen:
        seen = self._all.get(target, Seen)
        self._mine[target] = seen
        return seen


class _Further:
    """A request beside the first. It notes its facts in a record of its own, and is paid from the retry budget."""

    __slots__ = ("_before", "_call", "_mine")

    def __init__(self, call: Call, number: int) -> None:
        self._call, self._before = call, (call.attempts + number, call.network, call.queue)
        self._mine: Call | None = None

    def flow(self, request: Request, proceed: Proceed) -> Flow[Reply]:
        tokens = tokens_of(origin_of(request.url))
        if not tokens.take(COST):
            raise RateLimitedError("the retry budget is empty")  # the race goes on with those that run
        mine = self._mine = Call(*_facts(self._call))
        mine.attempts, mine.network, mine.queue = self._before
        reply = yield from proceed(mine, request)
        tokens.give(COST)
        return reply

    @property
    def sent(self) -> int:
        """Requests that went out."""
        return 0 if self._mine is None else self._mine.attempts - self._before[0]

    def tell(self, call: Call) -> None:
        """Its answer is the call's."""
        assert self._mine is not None
        call.network, call.queue = self._mine.network, self._mine.queue
