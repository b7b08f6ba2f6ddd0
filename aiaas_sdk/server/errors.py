"""What a client is told: an `AiaasError` as a status and one sentence, without what is the operator's business.

Below /v1 it is told in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`, at /invocations in MLflow's,
`{"error_code", "message"}`, anywhere else in that of the Open Inference Protocol, `{"error": "<text>"}`. A client's own
mistakes are 400. What the operator has to mend (a broken bundle, a wrong key for the endpoint behind a gateway) is told
in general words, and of what a model's own code raises its class alone: its text may hold a path, a password, or what
others asked. The log has the particulars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from aiaas_sdk.errors import (
    AiaasError,
    AuthenticationError,
    BudgetExceededError,
    BundleError,
    CircuitOpenError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    ContextLengthError,
    DeadlineExceededError,
    InputError,
    IntegrityError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ModelNotReadyError,
    OutputError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PrivacyError,
    ProtocolError,
    RateLimitedError,
    StatusError,
    StreamInterruptedError,
    UnavailableError,
    UnsafeBundleError,
    UnsupportedOperationError,
)

__all__ = ["RefusedError", "error_body", "in_openai_form", "no_memory", "phrase", "refusal"]

PAUSE = 1.0
"""Seconds that a client is asked to wait where nobody knows better."""

_STATUSES: Sequence[tuple[type[AiaasError], int]] = (  # the first that fits
    (InputError, 400),
    (UnsupportedOperationError, 400),
    (PayloadTooLargeError, 413),
    (InvalidRequestError, 400),
    (PrivacyError, 403),
    (ModelNotFoundError, 404),
    (RateLimitedError, 429),
    (BudgetExceededError, 429),
    (ModelError, 500),
    (OutputError, 500),
    (ModelNotReadyError, 503),
    (CircuitOpenError, 503),
    (ClosedError, 503),
    (DeadlineExceededError, 504),
    (AuthenticationError, 502),
    (PermissionDeniedError, 502),
    (ConnectError, 502),
    (ConnectionLostError, 502),
    (StreamInterruptedError, 502),
    (StatusError, 502),
)

_CODES: Sequence[tuple[type[AiaasError], str]] = (
    (ModelNotFoundError, "model_not_found"),
    (ContextLengthError, "context_length_exceeded"),
    (RateLimitedError, "rate_limit_exceeded"),
    (BudgetExceededError, "insufficient_quota"),
    (OutputError, "output_mismatch"),
)
"""Codes that say what no status does: OpenAI's, and one of ours."""

_IN_GENERAL: Sequence[tuple[type[AiaasError], str]] = (
    (AuthenticationError, "the endpoint behind this gateway refused the gateway's credential"),
    (PermissionDeniedError, "the endpoint behind this gateway refused the gateway's credential"),
    (ConnectError, "the endpoint behind this gateway can't be reached"),
    (ConnectionLostError, "the connection to the endpoint behind this gateway was lost"),
    (IntegrityError, "its files aren't what its manifest says, or not signed as asked (the server's log has more)"),
    (UnsafeBundleError, "it could run code, and nobody trusted has signed it (the server's log has more)"),
    (BundleError, "its files can't be read as a model (the server's log has more)"),
)
"""What is told in place of a message that may hold the operator's words; the first kind that fits."""


class RefusedError(Exception):
    """A request that gets this answer: a status and one sentence.

    Attributes:
        status, message: of the answer.
        retry_after: seconds for the header Retry-After, None for no such header.
        headers: further headers of the answer.
        unread: the rest of the request's body isn't worth reading; the connection ends with the answer.
        full: whether the queue that was full still is; None where it is refused for something else.
        code, param: OpenAI's code of the error, and the member of the request that is meant.
        output: what the model said, where that is what's wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after: float | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        unread: bool = False,
        code: str | None = None,
        param: str | None = None,
        output: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param, self.output = code, param, output
        self.retry_after, self.headers, self.unread = retry_after, headers, unread
        self.full: Callable[[], bool] | None = None

    def header_lines(self) -> list[tuple[bytes, bytes]]:
        """The headers that go with it; Retry-After in whole seconds (RFC 9110 10.2.3)."""
        if self.retry_after is None:
            return list(self.headers)
        return [*self.headers, (b"retry-after", str(max(1, math.ceil(self.retry_after))).encode())]


def no_memory() -> RefusedError:
    """The answer where there is no memory for a request: no model's fault."""
    return RefusedError(503, "the server has no memory for this request now", retry_after=PAUSE, unread=True)


def in_openai_form(path: str) -> bool:
    """Whether errors of this path are told in OpenAI's form; the verbs of KServe's V1 protocol have another."""
    return (path == "/v1" or path.startswith("/v1/")) and not path.endswith((":predict", ":explain"))


def error_body(refused: RefusedError, path: str) -> bytes:
    """The body of the answer that says no."""
    told: Any = {"error": refused.message}
    if path == "/invocations":
        told = {"error_code": _MLFLOW.get(refused.status, "INTERNAL_ERROR"), "message": refused.message}
    elif in_openai_form(path):
        kind = _KINDS.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
        told = {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}
        if refused.output is not None:
            told["error"]["output"] = refused.output
    return to_json(told)


_MLFLOW = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    406: "BAD_REQUEST",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The error codes of MLflow's servers (`mlflow/protos/databricks.proto`) by status."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
"""The types of OpenAI's errors that aren't told by whose fault it is."""


def phrase(status: int) -> str:
    """A status in words."""
    return HTTPStatus(status).phrase.lower()


def refusal(error: AiaasError, *, name: str, hidden: Sequence[str] = (), remote: bool = False) -> RefusedError:
    """The answer for an error of a served model.

    Args:
        error: what the model raised.
        name: the name under which it is served.
        hidden: the operator's own words for it (its address, its path); the name stands in their place.
        remote: it is behind another endpoint, whose faults are 502.
    """
    status = _status(error, remote)
    wait = error.retry_after
    if status == 503 and wait is None:
        wait = PAUSE
    return RefusedError(
        status,
        _message(error, status, name, hidden),
        retry_after=wait if status in (429, 503) else None,
        # it was asked for again already
        headers=[(b"x-should-retry", b"false")] if isinstance(error, OutputError) else (),
        code=next((code for kind, code in _CODES if isinstance(error, kind)), None),
        output=error.text if isinstance(error, OutputError) else None,
    )


def _status(error: AiaasError, remote: bool) -> int:
    if isinstance(error, UnavailableError):
        return error.status if error.status in (502, 503, 504) else 503
    if isinstance(error, ProtocolError) and not isinstance(
        error, OutputError
    ):  # a model here that breaks its own signature has failed
        return 502 if remote else 500
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)


def _message(error: AiaasError, status: int, name: str, hidden: Sequence[str]) -> str:
    general = next((text for kind, text in _IN_GENERAL if isinstance(error, kind)), None)
    if general is not None:
        return f"model {name!r}: {general}"
    if not isinstance(error, _TELLABLE):
        return f"model {name!r} can't be loaded; the server's log says why"
    text = f"{error.message}. {error.hint}" if error.hint and isinstance(error, InputError) else error.message
    raised = f" raised {_own(error)}"
    if (at := text.find(f"{raised}: ")) >= 0:
        text = f"{text[:at]}{raised}; the server's log says more"
    for words in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(words, name)
    return text


def _own(error: AiaasError) -> str:
    """The class of what the model's own code raised, where that is why it failed; "" where something else is."""
    cause: BaseException | None = error
    for _ in range(8):
        if not isinstance(cause, AiaasError):
            break
        failed, cause = isinstance(cause, ModelError), cause.__cause__ or cause.__context__
        if failed and cause is not None and not isinstance(cause, AiaasError):
            return type(cause).__name__
    return ""


_TELLABLE = (*(kind for kind, _ in _STATUSES), UnavailableError, ProtocolError)
