"""What wraps each request of a call to an endpoint. This module composes the policies, outermost first, in the one
order there is:

1. retry: the request is sent again after a failure that may pass;
2. hedge: a second one is sent while the first is slow;
3. limits: it waits for a place among those in flight, and for its turn;
4. breaker: it fails at once where the endpoint keeps failing.

Policies of plugins, where the option `policies` names some, stand before all of these, in that order.

Then the attempt itself, bounded by `attempt_timeout`. `timeout` is the deadline of all of it, pauses included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiaas_sdk import registry
from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError, UnsupportedOperationError
from aiaas_sdk.records.call import Around
from aiaas_sdk.records.policies import Breaker, Hedge, Limits, Retry

__all__ = ["around_request"]

LATER = ("cache", "budget", "privacy")
RECORDS: dict[str, type[Any]] = {"retry": Retry, "hedge": Hedge, "limits": Limits, "breaker": Breaker}
"""In the order in which they wrap."""
DEFAULTS: Mapping[str, Any] = {"retry": Retry(), "breaker": Breaker()}


def around_request(options: Mapping[str, Any]) -> Around | None:
    """The policies that wrap one request of a remote backend, as one; None where there is none."""
    for name in LATER:
        if options.get(name) is not None:
            raise UnsupportedOperationError(f"the policy {name!r} isn't available in this version")
    composed: Around | None = None
    for name in reversed(RECORDS):
        settings = options.get(name, DEFAULTS.get(name))
        if settings is None:
            continue
        if not isinstance(settings, RECORDS[name]):
            given = RECORDS[name].__name__
            raise ConfigError(f"{name} is {kind_of(settings)}", hint=f"Give aiaas.{given}(...) or None")
        policy = _policy(name, settings)
        composed = policy if composed is None else _within(policy, composed)
    for name in reversed(_named(options.get("policies") or ())):
        brought = registry.policy(name)
        composed = brought if composed is None else _within(brought, composed)
    return composed


def _named(names: Any) -> Sequence[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError("policies is no list of names", hint='Give names: policies=["audit"]')
    return tuple(names)


def _within(outer: Around, inner: Around) -> Around:
    def around(call: Any, request: Any, proceed: Any) -> Any:
        return outer(call, request, partial(_proceed, inner, proceed))

    return around


def _proceed(inner: Around, proceed: Callable[[Any, Any], Any], call: Any, request: Any) -> Any:
    return inner(call, request, proceed)


def _policy(name: str, settings: Any) -> Around:
    """Each is imported by whom it concerns: tenacity costs 60 ms."""
    if name == "retry":
        from aiaas_sdk.policies.retry import RetryPolicy

        return RetryPolicy(settings)
    if name == "hedge":
        from aiaas_sdk.policies.hedge import HedgePolicy

        return HedgePolicy(settings)
    if name == "limits":
        from aiaas_sdk.policies.limits import LimitsPolicy

        return LimitsPolicy(settings)
    from aiaas_sdk.policies.breaker import BreakerPolicy

    return BreakerPolicy(settings)
