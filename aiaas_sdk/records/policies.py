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
        statuses: the HTTP statuses that are tried again.
    """

    attempts: int = 3
    wait: float = 0.1
    max_wait: float = 8.0
    statuses: tuple[int, ...] = RETRIED_STATUSES

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", tuple(self.statuses))
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least 1 is needed (1 = no retry)")
        if self.wait < 0 or self.max_wait < 0:
            raise ValueError("wait and max_wait are seconds and can't be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """A second request while the first is slow. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Stop asking a peer that keeps failing. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many calls at once and a second. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Answers kept for equal calls. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit on cost. Not available yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What may leave this machine. Not available yet."""
