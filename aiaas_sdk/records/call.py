"""What one call carries down and brings back up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Call"]


def _plain(call: Call, request: Any, proceed: Callable[[Any], Any]) -> Any:
    return proceed(request)


@dataclass(slots=True)
class Call:
    """One call on its way: the policies it travels with, and what backend and policies learned.

    Attributes:
        verb: "predict", ...; "open" and "ready" for the calls before it.
        around: the request policies, composed; a remote backend sends through them.
        attempt_timeout: seconds for one attempt.
        attempts: requests sent so far; allowed: how many the retry policy grants.
        request_id, version, backend: as the answer says.
        queue, compute, network: seconds, where somebody measured them.
    """

    verb: str
    around: Callable[[Call, Any, Callable[[Any], Any]], Any] = _plain
    attempt_timeout: float | None = None
    attempts: int = 0
    allowed: int | None = None
    request_id: str | None = None
    version: str | None = None
    backend: str | None = None
    queue: float | None = None
    compute: float | None = None
    network: float | None = None
