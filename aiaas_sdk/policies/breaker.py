"""`Breaker` at work: an endpoint that keeps failing isn't asked for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from aiaas_sdk.errors import AiaasError, CircuitOpenError, ConnectError, ConnectionLostError, DeadlineExceededError
from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.policies.shared import Shared
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Breaker

__all__ = ["BreakerPolicy", "Circuit"]

logger = logging.getLogger("aiaas_sdk.policies")

SLICES = 10
"""The window moves on in so many steps."""


class Circuit:
    """The state of one endpoint. `clock` gives seconds."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float] = time.monotonic) -> None:
        self._breaker, self._clock = breaker, clock
        self._guard = threading.Lock()
        self._slices: deque[list[float]] = deque()  # begin, requests, failures
        self._open_until: float | None = None
        self._probing = False

    def enter(self, target: str) -> bool:
        """Whether the request that starts now is the one that tries whether the endpoint is back.

        Raises:
            CircuitOpenError: it isn't asked at present; `.retry_after` says for how long.
        """
        if self._open_until is None:  # most often, and a stale look does no harm
            return False
        with self._guard:
            if self._open_until is None:
                return False
            left = self._open_until - self._clock()
            if left <= 0 and not self._probing:
                self._probing = True
                return True
        raise CircuitOpenError(
            f"{target} kept failing and isn't asked for {self._breaker.rest:g} s",
            hint="It is tried again by itself; set breaker= to change that",
            retry_after=max(left, 0.001),
        )

    def passed(self, probe: bool) -> None:
        with self._guard:
            if probe:
                self._close()
            self._slice()[1] += 1

    def failed(self, probe: bool, target: str) -> None:
        with self._guard:
            mine = self._slice()
            mine[1] += 1
            mine[2] += 1
            requests, failures = (sum(part[place] for part in self._slices) for place in (1, 2))
            often = requests >= self._breaker.minimum and failures >= self._breaker.failures * requests
            if not (probe or (often and self._open_until is None)):
                return
            self._open_until, self._probing = self._clock() + self._breaker.rest, False
        logger.warning("%s keeps failing; it isn't asked for %g s", target, self._breaker.rest)

    def left(self, probe: bool) -> None:
        """The request ended without telling anything: cancelled, or refused for its own sake."""
        if probe:
            with self._guard:
                self._probing = False

    def _close(self) -> None:
        self._open_until, self._probing = None, False
        self._slices.clear()

    def _slice(self) -> list[float]:
        """That of this moment; those past the window are dropped."""
        now, slices = self._clock(), self._slices
        while slices and slices[0][0] <= now - self._breaker.window:
            slices.popleft()
        if not slices or now - slices[-1][0] >= self._breaker.window / SLICES:
            slices.append([now, 0, 0])
        return slices[-1]


class BreakerPolicy:
    """Around one request, and nearest to it: what waits for a place doesn't count as slow."""

    _circuits: Shared[Circuit] = Shared()

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._mine: dict[str, Circuit] = {}

    def __call__(self, call: Call, request: Request, proceed: Callable[[Call, Request], Flow[Reply]]) -> Flow[Reply]:
        if call.verb in ("open", "ready"):  # looking whether it is there neither breaks anything nor is held back
            return (yield from proceed(call, request))
        circuit = self._mine.get(call.target) or self._circuit(call.target)
        probe = circuit.enter(call.target)
        try:
            reply = yield from proceed(call, request)
        except AiaasError as error:
            if _counts(error):
                circuit.failed(probe, call.target)
            elif error.status is not None:  # it answered
                circuit.passed(probe)
            else:
                circuit.left(probe)
            raise
        except BaseException:
            circuit.left(probe)
            raise
        circuit.passed(probe)
        return reply

    def _circuit(self, target: str) -> Circuit:
        circuit = self._circuits.get((target, self._breaker), lambda: Circuit(self._breaker))
        self._mine[target] = circuit
        return circuit


def _counts(error: AiaasError) -> bool:
    if isinstance(error, ConnectError | ConnectionLostError | DeadlineExceededError):
        return True
    return error.status is not None and error.status >= 500
