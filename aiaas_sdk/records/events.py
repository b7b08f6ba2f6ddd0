"""What observers are told of a call: frozen records, never with contents or credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.records.prediction import Served

__all__ = ["AttemptEvent", "CallEvent"]


class CallEvent(Served):
    """One call of a verb, as observers see it: the same object in all of the call's hooks.

    It fills as the call goes on: what isn't known yet is None, 0 or "". Who answered and what it took (`model`,
    `version`, `backend`, `attempts`, `request_id`, `timing`, `usage`) is as in a result. `timing.total` is known at
    the end, also of a call that failed.

    Attributes:
        verb: "predict", ...; "open" where the model is opened (weights are read, or the endpoint is asked what it
            serves).
        address: the model's address; an address never holds a credential.
        inputs: name, datatype and shape of each input; empty for "open", and where the inputs were refused.
        input_bytes: the size of all of them; None where there is none, or where one holds texts (BYTES), whose
            lengths would have to be read.
        error: the class of what the call raised ("UnavailableError", "CancelledError"), None where it passed.
        status: the HTTP status of the reply that made it fail, where there was one.
    """

    __slots__ = ("__weakref__", "_scheme", "_version", "address", "error", "input_bytes", "inputs", "status", "verb")

    _scheme: str
    _version: str | None
    verb: str
    address: str
    inputs: tuple[TensorSpec, ...]
    input_bytes: int | None
    error: str | None
    status: int | None

    def __init__(
        self,
        call: Call,
        address: str,
        *,
        scheme: str = "",
        version: str | None = None,
        inputs: tuple[TensorSpec, ...] = (),
        input_bytes: int | None = None,
        error: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(call)
        put = object.__setattr__
        put(self, "verb", call.verb)
        put(self, "address", address)
        put(self, "_scheme", scheme)
        put(self, "_version", version)
        put(self, "inputs", inputs)
        put(self, "input_bytes", input_bytes)
        put(self, "error", error)
        put(self, "status", status)

    @property
    def version(self) -> str | None:
        """The version that answered; until it has, the one that the model said it was when it was opened."""
        return self._call.version or self._version

    @property
    def backend(self) -> str:
        """The scheme of the backend that answered ("torch", "oip"); until then, of the one that is asked."""
        return self._call.backend or self._scheme

    def __repr__(self) -> str:
        return f"<CallEvent {self.verb} {self.address}: {self.error or 'no error'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        kept = ("address", "_scheme", "_version", "inputs", "input_bytes", "error", "status")
        return _rebuilt, (self._call, {name.lstrip("_"): getattr(self, name) for name in kept})


def _rebuilt(call: Call, state: dict[str, Any]) -> CallEvent:
    return CallEvent(call, **state)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent:
    """One request of a call to an endpoint.

    Attributes:
        number: which one it was, from 1; retries and hedged requests are counted alike.
        seconds: until its whole answer was there, or until it failed.
        status: the HTTP status of the reply; None where none came.
        error: the class of the failure, None where it passed.
    """

    number: int
    seconds: float
    status: int | None
    error: str | None
