"""What endpoints say when they say no: `{"error", "error_type"}`, and for a model that loads `"estimated_time"`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from aiaas_sdk.errors import AiaasError, ContextLengthError, ModelError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.status import status_error

__all__ = ["event_error", "explained"]

STATUSES = {"validation": 422, "generation": 424, "overloaded": 429, "unhealthy": 503, "backend": 424, "tokenizer": 422}
"""The status that goes with an `error_type` (TGI router/src/server.rs, TEI router/src/http/server.rs); else 500."""
LONGEST = 60.0
"""Seconds that an estimate is believed for."""
_TOO_LONG = re.compile(r"`inputs`.*must (be <=|have less than) \d+")


def explained(body: Buffer, error: AiaasError) -> AiaasError:
    """The error, or a closer one where the body says what no status does."""
    try:
        document = from_json(bytes(body))
    except ValueError:
        return error
    if not isinstance(document, dict):
        return error
    details: dict[str, Any] = {"status": error.status, "request_id": error.request_id}
    if error.status in (400, 413, 422) and _TOO_LONG.search(str(document.get("error"))):
        return ContextLengthError(error.message, hint="Send less, or ask for less with max_tokens", **details)
    if error.status == 424:
        return ModelError(error.message, hint="The model, or what runs it there, failed", **details)
    seconds = document.get("estimated_time")
    if error.status == 503 and error.retry_after is None and isinstance(seconds, int | float) and seconds > 0:
        error.retry_after = min(float(seconds), LONGEST)
    return error


def event_error(document: Mapping[str, Any]) -> AiaasError:
    """The error that an event of a stream tells."""
    status = STATUSES.get(str(document.get("error_type")).lower(), 500)
    body = to_json(document)
    return explained(body, status_error(status, {}, body, verb=True))
