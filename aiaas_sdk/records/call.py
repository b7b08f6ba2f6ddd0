"""What one call carries down and brings back up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeAlias

__all__ = ["Around", "Call", "Deadline"]

Around: TypeAlias = "Callable[[Call, Any, Callable[[Call, Any], Any]], Any]"
"""A request policy: takes a call, a request and what to do with them, and gives the flow of the reply."""


def _plain(call: Call, request: Any, proceed: Callable[[Call, Any], Any]) -> Any:
    return proceed(call, request)


class Deadline(float):
    """The moment (`time.monotonic`) by which a call must be over, and the seconds that its caller gave it."""

    __slots__ = ("timeout",)

    timeout: float

    @classmethod
    def after(cls, timeout: float) -> Self:
        made = cls(time.monotonic() + timeout)
        made.timeout = float(timeout)
        return made

    @property
    def elapsed(self) -> float:
        """Seconds since it was given."""
        return time.monotonic() - (self - self.timeout)


@dataclass(slots=True)
class Call:
    """One call on its way: the policies it travels with, and what backend and policies learned.

    Attributes:
        verb: "predict", ...; "open" and "ready" for the calls before it.
        target: the address that is called.
        deadline: the moment by which it must be over; None for never.
        headers: what observers add to each of its requests (trace context).
        around: the request policies, composed; a remote backend sends through them.
        attempt_timeout: seconds for one attempt.
        attempts: requests sent so far; allowed: how many the retry policy grants.
        before: how many of them went out for other requests than the present one: a call may make several.
        request_id, model, version, backend: as the answer says.
        total, queue, compute, network: seconds, where somebody measured them.
        rows, input_tokens, output_tokens: what was used, where somebody counted it.
    """

    verb: str
    around: Around = _plain
    attempt_timeout: float | None = None
    target: str = ""
    deadline: Deadline | None = None
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
    before: int = 0

    @property
    def tries(self) -> int:
        """How often the present request was sent."""
        return self.attempts - self.before

    def __getstate__(self) -> dict[str, Any]:
        """Its policies stay in the process that the call was made in."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "around"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.around = _plain
        for name, value in state.items():
            setattr(self, name, value)
