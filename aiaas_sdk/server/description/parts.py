"""The words of which operations are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ERRORS", "given", "operation", "ref", "told"]

Data = dict[str, Any]

ERRORS: Mapping[int, str] = {
    400: "the request is wrong; the message says what and where",
    401: "no credential, or one that isn't good",
    403: "the caller may not do this, or the Host or Origin isn't this server's",
    404: "there is no such model, version or path",
    406: "no form of the answer is among those that Accept takes",
    413: "the body, or what it becomes unpacked, is larger than this server takes",
    415: "a Content-Encoding or Content-Type that isn't taken",
    422: "the Idempotency-Key was used for another request",
    429: "a limit of the caller's is reached",
    500: "the model failed; the server's log says why",
    502: "the endpoint behind this gateway failed",
    503: "not ready, overloaded or shutting down",
    504: "the caller's time ran out",
    507: "the server's disk is full",
}
LATER = (429, 503)
"""Answers that may say when to ask again."""
ANYWHERE = (400, 401, 403, 404, 429)
"""What any request may be told."""
ASKING = (*ANYWHERE, 413, 415, 500, 502, 503, 504)
"""What a request with a body for a model may be told."""


def ref(name: str) -> Data:
    return {"$ref": f"#/components/schemas/{name}"}


def told(description: str, schema: Data | None = None, media: str = "application/json", **more: Data) -> Data:
    """An answer; `more` are further media types, "text/csv" written text_csv."""
    content = {media: {"schema": schema}} if schema is not None else {}
    return {"description": description, "content": content, **more} if content or more else {"description": description}


def given(schema: Data, examples: Mapping[str, Any], media: str = "application/json", *, needed: bool = True) -> Data:
    """A request's body, with examples by name."""
    body: Data = {"schema": schema}
    if examples:
        body["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": needed, "content": {media: body}}


def operation(
    id: str,
    tag: str,
    summary: str,
    answer: Data,
    *,
    parameters: Sequence[Data] = (),
    body: Data | None = None,
    errors: Sequence[int] = ANYWHERE,
    error: str = "Error",
) -> Data:
    """One operation: 200 with `answer`, and each of the statuses `errors` with the form `error`."""
    found: Data = {"operationId": id, "tags": [tag], "summary": summary}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = body
    refusals = {str(status): _refusal(status, error) for status in errors}
    return {**found, "responses": {"200": answer, **refusals}}


def _refusal(status: int, error: str) -> Data:
    answer = told(ERRORS[status], ref(error))
    if status in LATER:
        answer["headers"] = {
            "Retry-After": {"description": "seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
        }
    return answer
