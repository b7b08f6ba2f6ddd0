"""gRPC's statuses and HTTP's, one for the other, so that an error has one class whatever way it came.

Source: googleapis `google/rpc/code.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping

from grpc import StatusCode

__all__ = ["code_of", "status_of"]

_STATUSES: Mapping[StatusCode, int] = {
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 500,
}
_CODES: Mapping[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def status_of(code: StatusCode, words: str) -> int:
    """The HTTP status that says the same as a gRPC status with these words.

    Two are told by their words: gRPC has one status for a message that is too large and for too many requests, and
    MLServer 1.7 says UNKNOWN or INTERNAL of a model that it doesn't have.
    """
    if code is StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in words:
        return 413
    if code in (StatusCode.UNKNOWN, StatusCode.INTERNAL) and "ModelNotFound" in words:
        return 404
    return _STATUSES[code]


def code_of(status: int) -> StatusCode:
    """The gRPC status of an answer that says no."""
    return _CODES.get(status, StatusCode.INTERNAL if status >= 500 else StatusCode.FAILED_PRECONDITION)
