"""The options of a model: the same names in `load`, `with_options` and aiaas.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from aiaas_sdk.records.network import Network
from aiaas_sdk.records.policies import Breaker, Budget, Cache, Hedge, Limits, Privacy, Retry
from aiaas_sdk.records.secret import Secret
from aiaas_sdk.records.sources import Answer

__all__ = ["ENGINE_OPTIONS", "OPTION_NAMES", "UNSET", "VIEW_OPTIONS", "Options", "Unset"]


class Unset:
    """The type of "not given", which is not None: `timeout=None` means no limit."""

    def __repr__(self) -> str:
        return "..."


UNSET = Unset()


class Options(TypedDict, total=False):
    """Options of `load`, `load_async`, `route`, `create` and `with_options`.

    `verify` names public keys that are trusted besides your own and those of [trust] in the settings, and asks for a
    signature by one of all these, whatever the bundle holds. True is the default: a program needs such a signature, a
    registered architecture none. False trusts nobody.
    `policies` names policies of plugins, which wrap each request outside all others, the first outermost.
    """

    device: str
    dtype: str
    verify: bool | Sequence[str | bytes]
    architecture: type[Any]
    model: str
    api_key: str | Secret | Callable[[], Answer]
    headers: Mapping[str, str | Secret]
    network: Network | None
    timeout: float | None
    attempt_timeout: float | None
    gap_timeout: float | None
    retry: Retry | None
    hedge: Hedge | None
    breaker: Breaker | None
    limits: Limits | None
    cache: Cache | None
    budget: Budget | None
    privacy: Privacy | None
    policies: Sequence[str]
    concurrency: int
    batch_size: int


OPTION_NAMES = tuple(Options.__annotations__)
ENGINE_OPTIONS = frozenset(
    ("device", "dtype", "verify", "architecture", "model", "api_key", "headers", "network", "concurrency")
)
"""Those that decide what is loaded or connected; a view with another value of one loads anew."""
VIEW_OPTIONS = frozenset(OPTION_NAMES) - ENGINE_OPTIONS
