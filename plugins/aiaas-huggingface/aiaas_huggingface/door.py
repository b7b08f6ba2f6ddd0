"""What each kind of endpoint asks through: JSON there and back, with the call's policies around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiaas_sdk.flow import Flow, Reply
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Spoken

__all__ = ["Door"]


class Door(Protocol):
    """The backend, as far as the kinds of endpoints know it."""

    def ask(self, call: Call, path: str, document: Mapping[str, Any]) -> Flow[tuple[Any, Mapping[str, str]]]:
        """POST; gives the parsed answer and the reply's headers."""

    def listen(
        self, call: Call, path: str, document: Mapping[str, Any], consume: Callable[[Reply], Flow[Spoken]]
    ) -> Flow[Spoken]:
        """POST, and hand the opened reply to `consume`."""
