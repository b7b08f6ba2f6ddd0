"""Errors: in the body of a reply, and in a stream under a status that says success."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.errors import AiaasError, ContextLengthError, OutputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.status import status_error

__all__ = ["coded_error", "event_error", "means_model"]

_BY_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "service_unavailable": 503,
}


def event_error(document: Mapping[str, Any]) -> AiaasError:
    """The error of an `error` object under a status that says success; its class as if its status had been told.

    Where nothing tells, it is 502: something behind the peer failed, and another peer may do better.
    """
    error = document.get("error")
    told = error if isinstance(error, Mapping) else {}
    codes = [told.get("code"), told.get("status"), told.get("type"), told.get("http_status_code")]
    status = next((code for code in codes if type(code) is int and 400 <= code < 600), None)
    status = status or next((_BY_KIND[code] for code in codes if isinstance(code, str) and code in _BY_KIND), 502)
    body = json.dumps({"error": error}).encode()
    return coded_error(body, status_error(status, {}, body, verb=True))


def coded_error(body: Buffer, error: AiaasError) -> AiaasError:
    """The error for a body with a code that says what no status does: OpenAI's, or one of `aiaas serve`."""
    try:
        document = from_json(bytes(body))
    except ValueError:
        return error
    found = document.get("error") if isinstance(document, dict) else None
    told: Mapping[str, Any] = found if isinstance(found, dict) else {}
    details: dict[str, Any] = {"status": error.status, "request_id": error.request_id}
    if told.get("code") == "context_length_exceeded":
        return ContextLengthError(error.message, hint="Send less, or ask for less with max_tokens", **details)
    if told.get("code") == "output_mismatch" and isinstance(told.get("output"), str):
        return OutputError(error.message, text=told["output"], hint="Its text is in .text", **details)
    return error


def means_model(body: Buffer) -> bool:
    """Whether the body of a 404 says that the model isn't there; else it is the path that isn't.

    OpenAI, vLLM and Ollama speak of the model, in a code or in words, and Azure of the deployment. What isn't JSON
    comes from what stands before the model.
    """
    words = bytes(body[:4096]).lower()
    return words.lstrip()[:1] == b"{" and (b"model" in words or b"deployment" in words)
