"""The settings of the policies: frozen records that `load`, `with_options` and aiaas.toml take.

They hold numbers only; what they do is in `aiaas_sdk.policies`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Breaker", "Budget", "Cache", "Hedge", "Limits", "Privacy", "Retry"]

RETRIED_STATUSES = (408, 429, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Asking again after a failure that may pass.

    A failure to connect is always tried again; 429 and 503 for every verb; a lost connection, an attempt
    that ran out of time and the other statuses only for verbs that may be repeated (predict, embed, explain).

    Attributes:
        attempts: how many times the peer is asked in all; 1 switches retrying off.
        wait: seconds, the upper bound of the first pause; each next bound is twice as long (full jitter).
        max_wait: seconds, the longest pause.
        budget: the share of calls that may be retries, in the long run; None for no such limit. All clients of a
            process share the budget of an origin: 500 tokens, of which a retry takes 1/budget (14; 5 after a 429 or
            503), and which a success gives back, and one more. Without tokens a call fails after its first attempt.
        statuses: the HTTP statuses that are tried again.
    """

    attempts: int = 3
    wait: float = 0.1
    max_wait: float = 8.0
    budget: float | None = 1 / 14
    statuses: tuple[int, ...] = RETRIED_STATUSES

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", tuple(self.statuses))
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least 1 is needed (1 = no retry)")
        if self.wait < 0 or self.max_wait < 0:
            raise ValueError("wait and max_wait are seconds and can't be negative")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ValueError(f"budget is {self.budget}; it is a share, above 0 and at most 1, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """A second request while the first is slow; the first answer wins, and the other request is given up.

    Off unless it is asked for, and only for verbs that may be repeated (predict, embed, explain). Each further
    request takes tokens of the retry budget, so that an endpoint that is slow for everybody isn't asked twice by
    everybody.

    Attributes:
        delay: seconds after which the next request is sent; None takes the time that 95 of the last 100 requests
            needed, and doesn't hedge before 20 have been seen.
        requests: how many there are at most, the first one included.
    """

    delay: float | None = None
    requests: int = 2

    def __post_init__(self) -> None:
        if self.delay is not None and self.delay < 0:
            raise ValueError("delay is seconds and can't be negative")
        if self.requests < 2:
            raise ValueError(f"requests is {self.requests}; at least 2 are needed (hedge=None switches hedging off)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Stop asking an endpoint that keeps failing: calls fail at once with CircuitOpenError for a while.

    What counts as a failure is not being reached, a connection that is lost, an answer of 500 or above, and an
    attempt that runs out of time; 429, other 4xx and cancelled calls don't count. After `rest` one call is let
    through: if it passes, all are. The models of a process that have the same address share a breaker.

    Attributes:
        failures: the share of failed requests at which it opens.
        minimum: requests within `window` below which it never opens.
        window: seconds that are looked at.
        rest: seconds for which it stays open.
    """

    failures: float = 0.5
    minimum: int = 20
    window: float = 10.0
    rest: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.failures <= 1:
            raise ValueError(f"failures is {self.failures}; it is a share, above 0 and at most 1")
        if self.minimum < 1:
            raise ValueError(f"minimum is {self.minimum}; at least 1 is needed")
        if not (self.window > 0 and self.rest > 0):
            raise ValueError("window and rest are seconds above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an endpoint is asked at once. What is too much waits, until the call's deadline.

    The models of a process that have the same address and the same limits share them.

    Attributes:
        concurrency: requests in flight; None for no limit.
        requests_per_second: requests start at least 1/requests_per_second apart; None for no limit.
        connections: connections that this model and its views have open to one origin; None for no limit.
    """

    concurrency: int | None = None
    requests_per_second: float | None = None
    connections: int | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "connections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; at least 1 is needed, or None for no limit")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ValueError("requests_per_second is above 0, or None for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Answers kept for equal calls. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit on cost. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What may leave this machine. Not available yet."""
