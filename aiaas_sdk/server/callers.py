"""What a request's headers say of its caller: how long he waits, and whether he asks again by himself."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from aiaas_sdk.backends.base import ATTEMPT, TIMEOUT
from aiaas_sdk.server.errors import RefusedError

__all__ = ["allowed", "request_id", "retries_himself"]

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_RETRIES = "x-stainless-retry-count"
"""OpenAI's own clients send it; they ask again after 408, 409, 429 and any 5xx."""


def allowed(headers: Mapping[str, str], limit: float | None) -> float | None:
    """Seconds for which the call may run: no longer than whoever sent it waits.

    Raises:
        RefusedError: 504, it isn't waited for any more.
    """
    text = headers.get(TIMEOUT, "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return limit
    if not int(text):
        raise RefusedError(504, "the caller's time has run out")
    return min(int(text) / 1000, limit or float("inf"))


def retries_himself(headers: Mapping[str, str]) -> bool:
    """Whether the caller asks again where that may help: then nobody here does it for him."""
    return ATTEMPT in headers or _RETRIES in headers


def request_id(told: str) -> str:
    """The caller's own id of the request, from its header, or else a new one."""
    return told if _ID.fullmatch(told) else f"req_{uuid.uuid4().hex}"
