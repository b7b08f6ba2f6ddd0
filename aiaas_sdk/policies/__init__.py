"""What wraps a call. This module composes the policies, outermost first, in the one order there is:

1. retry: one request, asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiaas_sdk.errors import ConfigError, UnsupportedOperationError
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Retry

__all__ = ["around_request"]

Around = Callable[[Call, Any, Callable[[Any], Any]], Any]
LATER = ("hedge", "breaker", "limits", "cache", "budget", "privacy")


def around_request(options: Mapping[str, Any]) -> Around | None:
    """The policies that wrap one request of a remote backend, as one; None where there is none."""
    for name in LATER:
        if options.get(name) is not None:
            raise UnsupportedOperationError(f"the policy {name!r} isn't available in this version")
    retry = options.get("retry", Retry())
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        raise ConfigError(f"retry is a {type(retry).__name__}", hint="Give aiaas.Retry(attempts=...) or None")
    from aiaas_sdk.policies.retry import RetryPolicy

    return RetryPolicy(retry)
