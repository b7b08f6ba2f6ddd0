"""Errors as answers: a status and `{"error": "..."}`, with exactly `application/json`."""

from __future__ import annotations

import logging
import math

from pydantic_core import to_json
from starlette.responses import Response

from aiaas_sdk import errors
from aiaas_sdk.errors import AiaasError

__all__ = ["as_json", "failure", "refusal", "status_of"]

logger = logging.getLogger("aiaas_sdk.server")
STATUSES: tuple[tuple[type[AiaasError], int], ...] = (
    (errors.InputError, 400),
    (errors.PayloadTooLargeError, 413),
    (errors.InvalidRequestError, 400),
    (errors.UnsupportedOperationError, 400),
    (errors.ModelNotFoundError, 404),
    (errors.RateLimitedError, 429),
    (errors.ModelError, 500),
    (errors.ModelNotReadyError, 503),
    (errors.UnavailableError, 503),
    (errors.CircuitOpenError, 503),
    (errors.ClosedError, 503),
    (errors.DeadlineExceededError, 504),
    (errors.ConnectError, 502),
    (errors.ConnectionLostError, 502),
    (errors.ProtocolError, 502),
    (errors.AuthenticationError, 502),
    (errors.PermissionDeniedError, 502),
)
"""The first that fits; anything else is 500. A gateway's own credential that is refused is the gateway's fault."""
OURS = (errors.BundleError, errors.ConfigError, errors.AddressError, errors.PluginLoadError)
"""What only the operator can mend; it may name paths, so it goes to the log."""


def as_json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(document, inf_nan_mode="null"), status, headers, media_type="application/json")


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return as_json({"error": message}, status, headers)


def status_of(error: AiaasError) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def failure(error: Exception, name: str) -> Response:
    """The answer to a request that failed; what the caller needn't know is logged."""
    if not isinstance(error, AiaasError) or isinstance(error, OURS):
        logger.error("%s failed: %s", name, error, exc_info=error)
        return refusal(500, f"{name} failed; the server's log says why")
    if isinstance(error, errors.ModelError) and error.__cause__ is not None:
        logger.error("%s raised", name, exc_info=error.__cause__)
        return refusal(500, f"{name} raised {type(error.__cause__).__name__}")
    headers = {} if error.retry_after is None else {"retry-after": str(math.ceil(error.retry_after))}
    hint = f". {error.hint}" if error.hint and status_of(error) == 400 else ""
    return refusal(status_of(error), f"{error.message}{hint}", headers)
