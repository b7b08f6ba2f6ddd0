"""What the fault server saw: a record for each request and each connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiaas_sdk.wire.oip import HEADER_LENGTH

__all__ = ["Connected", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came.

    Attributes:
        time: when its head was whole (`time.monotonic`).
        connection: the number of its connection, from 1.
        verb: "server", "metadata", "ready" or "predict"; "other" for any other path.
        headers: names in lower case; of one that came twice, the last.
        fault: the name of the fault that answered it.
    """

    time: float
    connection: int
    verb: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    fault: str = "answer"

    @property
    def attempt(self) -> int | None:
        """Which attempt of its call it says it is, from 1; None where it doesn't say."""
        text = self.headers.get("aiaas-attempt", "")
        return int(text) if text.isdigit() else None

    @property
    def document(self) -> Any:
        """Its JSON without the tensors' bytes; None where there is none."""
        length = self.headers.get(HEADER_LENGTH, "")
        head = self.body[: int(length)] if length.isdigit() else self.body
        try:
            return json.loads(head)
        except ValueError:
            return None

    @property
    def id(self) -> str | None:
        """The id in its JSON: one for all attempts of a call."""
        document = self.document
        return document.get("id") if isinstance(document, dict) else None


@dataclass(slots=True)
class Connected:
    """A connection. `ended`: when the client hung up (`time.monotonic`), None where it hasn't yet."""

    number: int
    time: float
    requests: int = 0
    ended: float | None = None
