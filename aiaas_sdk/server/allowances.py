"""How much a caller may ask: requests and tokens in a minute, calls at once, and his share of a model's queue.

Requests and tokens are counted over all processes that serve (`buckets.py`). Calls at once and the share of a queue are
each process's own, as its queues are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.buckets import Bucket, bucket_of
from aiaas_sdk.server.errors import PAUSE, RefusedError

__all__ = [
    "UNLIMITED",
    "Allowance",
    "Allowances",
    "Limits",
    "check_share",
    "counted",
    "duration",
    "piece",
    "share_of",
    "spent",
]

SHARE = 0.5
"""Of a model's queue, for a caller of whom nothing else is said: one who floods leaves half to the others."""
KEPT = 10_000
"""Callers whose counts are kept; tokens may name any number of subjects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a caller may ask; None for no limit.

    Attributes:
        requests_per_minute: requests that ask something of a model (each POST counts).
        tokens_per_minute: tokens of prompts and answers.
        concurrency: requests at once.
        queue_share: of each model's queue, above 0 up to 1, that his calls may fill.

    Raises:
        ConfigError: one is impossible.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    queue_share: float = SHARE

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} is {value!r}", hint="Give a whole number from 1 on, or leave it out")
        if type(self.queue_share) not in (int, float) or not 0 < self.queue_share <= 1:
            raise ConfigError(f"queue_share is {self.queue_share!r}", hint="Give a number above 0, up to 1")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> Limits:
        """Those of a table that also says other things."""
        return cls(**{name: options[name] for name in cls.names() if name in options})


UNLIMITED = Limits(queue_share=1.0)


class Allowance:
    """What one caller, of this name, has used of his limits."""

    __slots__ = ("_name", "_places", "_requests", "_running", "_tokens", "limits")

    def __init__(self, limits: Limits, name: str = "") -> None:
        self._name = name
        self._running = 0
        self._places: dict[str, int] = {}
        self.adopt(limits)

    def adopt(self, limits: Limits) -> None:
        """Count by these from now on. What runs goes on counting."""
        self.limits = limits
        self._requests = self._bucket("requests", limits.requests_per_minute)
        self._tokens = self._bucket("tokens", limits.tokens_per_minute)

    def _bucket(self, what: str, size: int | None) -> Bucket | None:
        return None if size is None else bucket_of(self._name, what, size)

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing is owed: a new one would be the same."""
        used = [bucket for bucket in (self._requests, self._tokens) if bucket is not None and bucket.left < bucket.size]
        return not (self._running or self._places or used)

    def enter(self, tokens: float, *, unread: bool = False) -> None:
        """A request begins that may use so many tokens, as far as can be known.

        Args:
            unread: its body is too large to be read for nothing where it is refused.

        Raises:
            RefusedError: 429, it is more than he may ask now; it counts as not asked.
        """
        limits = self.limits
        if limits.concurrency is not None and self._running >= limits.concurrency:
            raise _reached(f"{limits.concurrency} requests at once", PAUSE, unread)
        if self._requests is not None and (wait := self._requests.until(1)):
            raise _reached(f"{limits.requests_per_minute} requests a minute", wait, unread)
        if self._tokens is not None and (wait := self._tokens.until(max(1, tokens))):
            raise _reached(f"{limits.tokens_per_minute} tokens a minute", wait, unread)
        self._running += 1
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def leave(self) -> None:
        self._running -= 1

    def settle(self, tokens: float) -> None:
        """So many tokens more were used than `enter` was told; fewer where it is negative."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    @contextmanager
    def place(self, model: str, queue: int) -> Iterator[None]:
        """A place in the model's queue.

        Raises:
            RefusedError: 429, his share of it is full.
        """
        self.check_place(model, queue)
        self._places[model] = self._places.get(model, 0) + 1
        try:
            yield
        finally:
            self._places[model] -= 1
            if not self._places[model]:
                del self._places[model]

    def check_place(self, model: str, queue: int) -> None:
        """RefusedError where `place` would raise it now."""
        held = self._places.get(model, 0)
        if held >= max(1, math.floor(queue * self.limits.queue_share)):
            raise _reached(f"{held} calls of this model that wait or run", PAUSE)

    def header_lines(self) -> list[tuple[bytes, bytes]]:
        """What is left of it, in the headers that OpenAI's clients know."""
        lines = []
        for what, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                lines += [
                    (b"x-ratelimit-limit-" + what, str(bucket.size).encode()),
                    (b"x-ratelimit-remaining-" + what, str(max(0, math.floor(bucket.left))).encode()),
                    (b"x-ratelimit-reset-" + what, duration(bucket.until(bucket.size)).encode()),
                ]
        return lines


def _reached(limit: str, wait: float, unread: bool = False) -> RefusedError:
    return RefusedError(
        429, f"your limit is reached: {limit}", retry_after=wait, code="rate_limit_exceeded", unread=unread
    )


class Allowances:
    """The allowances of all callers, by their names."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, name: str, limits: Limits) -> Allowance:
        """The allowance of a caller, whose limits may have been changed since he came last."""
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = Allowance(limits, name)
            self._forget()
        elif found.limits != limits:
            found.adopt(limits)
        self._held.move_to_end(name)
        return found

    def _forget(self) -> None:
        """Let go of some of those that came longest ago: a look at all of them would take too long."""
        if len(self._held) > KEPT:
            for name in list(islice(self._held, 8)):
                if self._held[name].idle:
                    del self._held[name]


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: "20ms", "1s", "6m0s"."""
    if seconds < 1:
        return f"{math.ceil(1000 * seconds)}ms"
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


# ---------------------------------------------------------------- the request that is being answered
@dataclass(slots=True)
class _Account:
    """What a request has been charged, and what it has used so far; pieces of a stream count until the whole does."""

    allowance: Allowance
    charged: float
    used: int = 0
    pieces: int = 0

    def settle(self, tokens: float) -> None:
        self.allowance.settle(tokens - self.charged)
        self.charged = tokens


_account: ContextVar[_Account | None] = ContextVar("aiaas_allowance", default=None)


@contextmanager
def counted(allowance: Allowance, tokens: float, *, unread: bool = False) -> Iterator[None]:
    """What this task does counts for this allowance; the arguments are those of `Allowance.enter`.

    Raises:
        RefusedError: 429, as `Allowance.enter` says.
    """
    allowance.enter(tokens, unread=unread)
    account = _Account(allowance, tokens)
    token = _account.set(account)
    try:
        yield
    finally:
        _account.reset(token)
        allowance.leave()
        if account.pieces and not account.used:  # its client left in the middle
            account.settle(account.charged + account.pieces)


def spent(tokens: int) -> None:
    """So many tokens (more) were used for this request; until that is known, the estimate counts."""
    if (account := _account.get()) is not None:
        account.used += tokens
        account.settle(account.used)


def piece() -> None:
    """A piece of a streamed answer went out: a token, about."""
    if (account := _account.get()) is not None:
        account.pieces += 1


def share_of(model: str, queue: int) -> AbstractContextManager[None] | None:
    """A context: this request's place in a model's queue of so many, within its caller's share; None without one.

    Raises:
        RefusedError: 429, the share is full.
    """
    account = _account.get()
    return None if account is None else account.allowance.place(model, queue)


def check_share(model: str, queue: int) -> None:
    """RefusedError where `share_of` would raise it now."""
    if (account := _account.get()) is not None:
        account.allowance.check_place(model, queue)
