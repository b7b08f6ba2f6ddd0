"""What one call carries down and brings back up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

__all__ = ["Around", "Call"]

Around: TypeAlias = "Callable[[Call, Any, Callable[[Call, Any], Any]], Any]"
"""A request policy: takes a call, a request and what to do with them, and gives the flow of the reply."""


def _plain(call: Call, request: Any, proceed: Callable[[Call, Any], Any]) -> Any:
    return proceed(call, request)


@dataclass(slots=True)
class Call:
    """One call on its way: the policies it travels with, and what backend and policies learned.

    Attributes:
        verb: "predict", ...; "open" and "ready" for the calls before it.
        target: the address that is called.
        deadline: the moment (`time.monotonic`) by which it must be over; None for never.
        headers: what observers add to each of its requests (trace context).
        around: the request policies, composed; a remote backend sends through them.
        attempt_timeout: seconds for one attempt.
        attempts: requests sent so far; allowed: how many the retry policy grants.
        request_id, model, version, backend: as the answer says.
        total, queue, compute, network: seconds, where somebody measured them.
        rows, input_tokens, output_tokens: what was used, where somebody counted it.
    """

    verb: str
    around: Around = _plain
    attempt_timeout: float | None = None
    target: str = ""
    deadline: float | None = None
    headers: dict[str, str] | None = None
    attempts: int = 0
    allowed: int | None = None
    request_id: str | None = None
    model: str = ""
    version: str | None = None
    backend: str | None = None
    total: float = 0.0
    queue: float | None = None
    compute: float | None = None
    network: float | None = None
    rows: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Its policies stay in the process that the call was made in."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "around"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.around = _plain
        for name, value in state.items():
            setattr(self, name, value)
