"""What a peer says when it says no: an error of the right class, and the peer's own words made safe.

Servers of the Open Inference Protocol don't agree on the shape of an error: `{"error": str}`,
`{"error": {"message": str}}`, `{"detail": str | list}`, `{"message": str}`, plain text, HTML, nothing. The
class is told by the status alone.
"""

from __future__ import annotations

import html
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json

from aiaas_sdk.errors import (
    AiaasError,
    AuthenticationError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    StatusError,
    UnavailableError,
)
from aiaas_sdk.flow import Buffer

__all__ = ["clean", "excerpt", "retry_after", "status_error"]

MAX_MESSAGE = 1_000  # characters
MAX_READ = 64 * 1024  # bytes of a body that are looked at

_CLASSES: Mapping[int, type[AiaasError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    409: InvalidRequestError,
    413: PayloadTooLargeError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid")


def status_error(status: int, headers: Mapping[str, str], body: Buffer, *, verb: bool) -> AiaasError:
    """The error for a reply that is no success.

    Args:
        status: its HTTP status.
        headers: its headers, names in lower case.
        body: its body; the first 64 KiB are read.
        verb: whether the request asked the model for something (a 500 is then the model's own failure).

    Returns:
        The error, not raised, with `.status`, `.retry_after` (s) and `.request_id` set; its message is one
        line of at most 1,000 characters with the peer's own words.
    """
    said = _said(bytes(body[:MAX_READ]))
    message = f"the server answered {_status_line(status)}" + (f": {said}" if said else "")
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    return _class_of(status, verb)(
        _shortened(message, MAX_MESSAGE),
        hint=_hint(status, headers),
        status=status,
        request_id=None if request_id is None else clean(request_id, 200),
        retryable=_retryable(status, headers),
        retry_after=retry_after(headers),
    )


def _class_of(status: int, verb: bool) -> type[AiaasError]:
    if status == 500 and verb:
        return ModelError
    return _CLASSES.get(status, ServerError if status >= 500 else StatusError)


def _retryable(status: int, headers: Mapping[str, str]) -> bool | None:
    """`x-should-retry: false` (OpenAI, Anthropic) is obeyed; "true" makes nothing safe to repeat. None: by class."""
    if headers.get("x-should-retry", "").strip().lower() == "false":
        return False
    return True if status == 408 else None


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _hint(status: int, headers: Mapping[str, str]) -> str | None:
    if not 300 <= status < 400:
        return None
    target = _origin(headers.get("location", ""))
    return f"It points to {target}. Redirects aren't followed; use the address that it means"


def _origin(location: str) -> str:
    """Where a redirect leads, as far as that holds no secret: neither its path nor its query."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "nowhere that makes sense"
    if not host:
        return "another place on the same server" if location else "nowhere"
    named = f"[{host}]" if ":" in host else host
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return clean(f"{scheme}{named}" + (f":{port}" if port else ""), 200)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, as the peer asks (RFC 9110 10.2.3); None where it doesn't, or not in a usable way.

    `retry-after-ms` (OpenAI, Azure) wins over `retry-after`, which is a number of seconds or an HTTP date.
    Zero, negative, unreadable, infinite and past values count as absent.

    Args:
        headers: names in lower case.
        now: the time in seconds since 1970; the clock's where absent.
    """
    milliseconds = _positive(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _positive(value)
    return seconds if seconds is not None else _until(value, time.time() if now is None else now)


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None


def _until(text: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        left = moment.timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return left if left > 0 else None


# ---------------------------------------------------------------- the peer's words
def clean(text: str, limit: int) -> str:
    """One line of at most `limit` characters: no control characters, terminal escapes or bidi marks.

    A forged line in a log, or a command to a terminal, can't come out of it (CWE-117, CWE-150).
    """
    line = " ".join(text[: 8 * limit].split())
    return _shortened("".join(char if char.isprintable() else "?" for char in line), limit)


def excerpt(body: Buffer, limit: int = 200) -> str:
    """The beginning of a body that should have been JSON and isn't, as clean text without tags."""
    return clean(_untagged(bytes(body[:MAX_READ]).decode("utf-8", "replace")), limit)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _said(body: bytes) -> str:
    try:
        # a body that was cut at the limit still holds the beginning of its message
        document = from_json(body, allow_partial="trailing-strings") if body[:1] in b'{["' else None
    except ValueError:
        document = None
    return clean(_message(document), MAX_MESSAGE) if _message(document) else excerpt(body, MAX_MESSAGE)


def _message(document: Any, depth: int = 4) -> str:
    """The words in a parsed error body: the first of the known members that holds any."""
    if isinstance(document, str):
        return document
    if isinstance(document, list) and depth:
        return "; ".join(filter(None, (_message(entry, depth - 1) for entry in document[:5])))
    if isinstance(document, dict) and depth:
        for name in ("error", "detail", "message", "msg"):
            if found := _message(document.get(name), depth - 1):
                return _placed(document, found)
    return ""


def _placed(document: dict[str, Any], message: str) -> str:
    """FastAPI's validation errors say in `loc` which member is meant."""
    place = document.get("loc")
    if not isinstance(place, list) or not place:
        return message
    return f"{'.'.join(str(part) for part in place[:8] if isinstance(part, str | int))}: {message}"


def _untagged(text: str) -> str:
    """Text without tags, scripts and styles. Each pattern stops at the next "<", so the time is linear."""
    if "<" not in text:
        return text
    pieces = re.split(r"(?i)<(/?)(?:script|style)\b[^<>]*>", text)
    # pieces alternate: text, "" or "/", text, ...; what follows an opening tag is code
    shown = [piece for mark, piece in zip(["/", *pieces[1::2]], pieces[::2], strict=True) if mark]
    return html.unescape(re.sub(r"<[^<>]*>", " ", " ".join(shown)))
