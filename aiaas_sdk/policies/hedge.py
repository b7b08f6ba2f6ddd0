"""`Hedge` at work: while one request is slow, a second one; the first answer wins."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter

from aiaas_sdk.errors import RateLimitedError
from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.policies.shared import Shared
from aiaas_sdk.policies.tokens import Tokens, tokens_of
from aiaas_sdk.racing import race
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Hedge
from aiaas_sdk.transport.origin import origin_of

__all__ = ["HedgePolicy", "Seen"]

COST = 14.0
"""Tokens of the retry budget for one more request, as for a retry."""
KEPT, ENOUGH, SHARE = 100, 20, 0.95
_facts = attrgetter(*(field.name for field in fields(Call)))  # a tenth of what copying takes


class Seen:
    """How long the last requests of an endpoint took."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._guard = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._guard:
            self._seconds.append(seconds)

    @property
    def slow(self) -> float | None:
        """Seconds in which 95 of 100 were done; None while too few have been seen."""
        with self._guard:
            if len(self._seconds) < ENOUGH:
                return None
            return sorted(self._seconds)[int(SHARE * (len(self._seconds) - 1))]


class HedgePolicy:
    """Around the requests of one attempt."""

    _all: Shared[Seen] = Shared()

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._mine: dict[str, Seen] = {}

    def __call__(self, call: Call, request: Request, proceed: Callable[[Call, Request], Flow[Reply]]) -> Flow[Reply]:
        seen = self._mine.get(call.target) or self._seen(call.target)
        delay = seen.slow if self._hedge.delay is None else self._hedge.delay
        begun = time.monotonic()
        if delay is None or not request.idempotent or call.verb in ("open", "ready"):
            reply = yield from proceed(call, request)
        else:
            reply = yield from self._hedged(call, request, proceed, delay)
        seen.add(time.monotonic() - begun)
        return reply

    def _hedged(
        self, call: Call, request: Request, proceed: Callable[[Call, Request], Flow[Reply]], delay: float
    ) -> Flow[Reply]:
        # each request notes its facts in a record of its own: the one that loses may end later
        facts = _facts(call)
        calls = [Call(*facts) for _ in range(self._hedge.requests)]
        tokens = tokens_of(origin_of(request.url))
        flows = [proceed(calls[0], request), *(_paid(mine, request, proceed, tokens) for mine in calls[1:])]
        before = call.attempts
        try:
            won, reply = yield from race(flows, delay)
            call.network, call.queue = calls[won].network, calls[won].queue
        finally:
            call.attempts = before + sum(mine.attempts - before for mine in calls)
        return reply

    def _seen(self, target: str) -> Seen:
        seen = self._all.get(target, Seen)
        self._mine[target] = seen
        return seen


def _paid(call: Call, request: Request, proceed: Callable[[Call, Request], Flow[Reply]], tokens: Tokens) -> Flow[Reply]:
    if not tokens.take(COST):
        raise RateLimitedError("the retry budget is empty")  # the race goes on with those that run
    reply = yield from proceed(call, request)
    tokens.give(COST)
    return reply
