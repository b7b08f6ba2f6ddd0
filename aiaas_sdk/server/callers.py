"""What a request says of its caller: how long he waits, and what he calls it."""

from __future__ import annotations

import re
import uuid

from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import Head

__all__ = ["allowed", "request_id"]

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def allowed(head: Head, limit: float | None) -> float | None:
    """Seconds for which the call may run: no longer than whoever sent it waits.

    Raises:
        RefusedError: 504, it isn't waited for any more.
    """
    waits = head.waits
    if waits is None:
        return limit
    if not waits:
        raise RefusedError(504, "the caller's time has run out")
    return min(waits / 1000, limit or float("inf"))


def request_id(told: str) -> str:
    """The caller's own id of the request, from its header, or else a new one."""
    return told if _ID.fullmatch(told) else f"req_{uuid.uuid4().hex}"
