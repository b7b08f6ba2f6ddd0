"""`Limits` at work: places for requests in flight, and a least distance between their starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from aiaas_sdk.flow import Flow, Reply, Request, sleep
from aiaas_sdk.policies.gate import Gate
from aiaas_sdk.policies.shared import Shared
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.network import PLAIN, Network
from aiaas_sdk.records.policies import Limits

__all__ = ["LimitsPolicy", "Pace"]

Proceed = Callable[[Call, Request], Flow[Reply]]


class Pace:
    """Starts at least `gap` seconds apart, each as early as possible (GCRA without a burst)."""

    def __init__(self, gap: float) -> None:
        self._gap, self._next, self._guard = gap, 0.0, threading.Lock()

    def turn(self) -> Flow[None]:
        """Until a request may start. A turn that is given up is free again if nobody has come after it."""
        with self._guard:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._gap
        try:
            if mine > now:
                yield from sleep(mine - now)
        except BaseException:
            with self._guard:
                if self._next == mine + self._gap:
                    self._next = mine
            raise


class _Place:
    """What the models of one address share."""

    def __init__(self, limits: Limits) -> None:
        self.gate = None if limits.concurrency is None else Gate(limits.concurrency, "a place (limits.concurrency)")
        self.pace = None if limits.requests_per_second is None else Pace(1 / limits.requests_per_second)


@lru_cache(64)
def _narrowed(network: Network | None, connections: int) -> Network:
    """Connections are the transport's: it keeps the count, and whoever finds none free waits there."""
    return replace(network or PLAIN, connections=connections)


class LimitsPolicy:
    """Around one request."""

    _places: Shared[_Place] = Shared()

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._mine: dict[str, _Place] = {}

    def __call__(self, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        place = self._mine.get(call.target) or self._place(call.target)
        if self._limits.connections is not None:
            request = replace(request, network=_narrowed(request.network, self._limits.connections))
        if place.gate is None:
            return (yield from self._paced(place, call, request, proceed))
        begun = time.perf_counter()
        right = yield from place.gate.enter()
        try:
            call.queue = (call.queue or 0.0) + time.perf_counter() - begun
            return (yield from self._paced(place, call, request, proceed))
        finally:
            right.leave()

    def _paced(self, place: _Place, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        if place.pace is not None:
            yield from place.pace.turn()
        return (yield from proceed(call, request))

    def _place(self, target: str) -> _Place:
        place = self._places.get((target, self._limits), lambda: _Place(self._limits))
        self._mine[target] = place
        return place
