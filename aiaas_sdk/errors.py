"""Every error that a user of this package can meet: one tree, the same here and there.

::

    AiaasError
    ├── AddressError                 the address can't be understood, or holds a credential
    ├── ConfigError                  an option, aiaas.toml or an environment variable is wrong
    ├── InputError (ValueError)      what was handed in doesn't fit; nothing was sent
    │   └── ContextLengthError       it is longer than the model's context (here, or as the peer says)
    ├── UnsupportedOperationError (NotImplementedError)   this model can't do that verb or option
    ├── ClosedError                  the model was closed
    ├── BudgetExceededError          a budget would be overrun; nothing was sent
    ├── PrivacyError                 a privacy rule forbids the call; nothing was sent
    ├── PluginLoadError              a backend plugin is installed and can't be loaded
    ├── BackendNotInstalledError     no installed plugin serves that scheme, or an extra is missing
    ├── BundleError                  a bundle on disk is unusable
    │   ├── IntegrityError           a digest or a signature doesn't match
    │   └── UnsafeBundleError        loading it could run code or leave its folder
    ├── ModelNotFoundError           there is no such model or version (here, or a 404)
    ├── ModelNotReadyError           it exists and doesn't serve yet
    ├── ModelError                   the model itself raised (here, or a 500 on a verb)
    ├── ConnectError (ConnectionError)          the peer was never reached
    │   └── TLSError                 its certificate or the handshake failed
    ├── ConnectionLostError (ConnectionError)   sent, and no whole answer came
    ├── DeadlineExceededError (TimeoutError)    the time ran out
    ├── CircuitOpenError             the breaker is open; nothing was sent
    ├── StatusError                  the peer answered and said no
    │   ├── InvalidRequestError      400, 409, 415, 422
    │   │   └── PayloadTooLargeError 413
    │   ├── AuthenticationError      401
    │   ├── PermissionDeniedError    403
    │   ├── RateLimitedError         429
    │   ├── UnavailableError         502, 503, 504
    │   └── ServerError              any other 5xx
    ├── ProtocolError                the answer can't be understood
    │   └── OutputError              it doesn't fit the schema that was asked for; `.text` is what it says
    ├── StreamInterruptedError       a stream ended before its end; `.partial` is what arrived
    └── TrainingError                a training run failed
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "AddressError",
    "AiaasError",
    "AuthenticationError",
    "BackendNotInstalledError",
    "BudgetExceededError",
    "BundleError",
    "CircuitOpenError",
    "ClosedError",
    "ConfigError",
    "ConnectError",
    "ConnectionLostError",
    "ContextLengthError",
    "DeadlineExceededError",
    "InputError",
    "IntegrityError",
    "InvalidRequestError",
    "ModelError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "OutputError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PluginLoadError",
    "PrivacyError",
    "ProtocolError",
    "RateLimitedError",
    "ServerError",
    "StatusError",
    "StreamInterruptedError",
    "TLSError",
    "TrainingError",
    "UnavailableError",
    "UnsafeBundleError",
    "UnsupportedOperationError",
]


class AiaasError(Exception):
    """What happened, where, and what to do next; `str()` says all three.

    Attributes:
        message: what happened, one sentence, no secret and no tensor contents.
        hint: what to do next, or None.
        address: the model's address, where one is known.
        attempts: how many times the peer was asked (0: never).
        allowed: how many attempts were allowed, where a retry policy ran.
        elapsed: seconds since the call began; timeout: its limit in seconds.
        row: the index of the row that failed, in `map`.
        status: the HTTP status of the peer's reply, where one came.
        request_id: the request's id, as the peer knows it.
        retryable: the same call may pass later.
        retry_after: seconds to wait, as the peer said.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        address: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.address = address
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = 0
        self.allowed: int | None = None
        self.elapsed: float | None = None
        self.timeout: float | None = None
        self.row: int | None = None
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        where = ", ".join(self._where())
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}. {self.hint}" if self.hint else text

    def _where(self) -> list[str]:
        parts = [self.address] if self.address and self.address not in self.message else []
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.attempts > 1 or (self.attempts and self.allowed):
            parts.append(f"attempt {self.attempts}" + (f" of {self.allowed}" if self.allowed else ""))
        if self.elapsed is not None and self.timeout is not None:
            parts.append(f"{self.elapsed:.1f} s of {self.timeout:.1f} s")
        return [part for part in parts if part]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))

    def locate(self, **fields: Any) -> Self:
        """Fill in what an inner layer couldn't know (address, attempts, elapsed); what is set stays."""
        for name, value in fields.items():
            if not getattr(self, name):
                setattr(self, name, value)
        return self


def _rebuild(cls: type[AiaasError], message: str, state: dict[str, Any]) -> AiaasError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class AddressError(AiaasError):
    """The address can't be understood, or holds a credential."""


class ConfigError(AiaasError):
    """An option, `aiaas.toml` or an environment variable is wrong."""


class InputError(AiaasError, ValueError):
    """What was handed in doesn't fit the model: name, shape or dtype. Nothing was sent."""


class ContextLengthError(InputError):
    """The messages, with the answer asked for, are longer than the model's context; here, or as the peer says."""


class UnsupportedOperationError(AiaasError, NotImplementedError):
    """The model behind this address can't do that verb or option."""


class ClosedError(AiaasError):
    """The model was closed before or during the call."""


class BudgetExceededError(AiaasError):
    """The call would overrun a budget. Nothing was sent."""


class PrivacyError(AiaasError):
    """A privacy rule forbids the call. Nothing was sent."""


class PluginLoadError(AiaasError):
    """A backend plugin is installed and can't be loaded."""


class BackendNotInstalledError(AiaasError):
    """No installed plugin serves the scheme, or the extra that it needs is missing."""


class BundleError(AiaasError):
    """A bundle on disk is unusable, or can't be written."""


class IntegrityError(BundleError):
    """A digest or a signature of a bundle doesn't match."""


class UnsafeBundleError(BundleError):
    """Loading the bundle could run code that nobody vouched for, or leave its folder."""


class ModelNotFoundError(AiaasError):
    """There is no such model or version, here or at the peer (404)."""


class ModelNotReadyError(AiaasError):
    """The model exists and doesn't serve yet."""

    retryable = True


class ModelError(AiaasError):
    """The model itself raised, here or at the peer (500 on a verb)."""


class ConnectError(AiaasError, ConnectionError):
    """The peer was never reached; nothing was sent."""

    retryable = True


class TLSError(ConnectError):
    """The peer's certificate or the TLS handshake failed."""

    retryable = False


class ConnectionLostError(AiaasError, ConnectionError):
    """The request was sent, and no whole answer came."""

    retryable = True


class DeadlineExceededError(AiaasError, TimeoutError):
    """The time for the call, or for one attempt, ran out."""

    retryable = True


class CircuitOpenError(AiaasError):
    """The breaker for this peer is open; nothing was sent."""

    retryable = True


class StatusError(AiaasError):
    """The peer answered with a status that is no success."""


class InvalidRequestError(StatusError):
    """The peer refused the request as wrong (400, 409, 415, 422)."""


class PayloadTooLargeError(InvalidRequestError):
    """The request is larger than the peer takes (413)."""


class AuthenticationError(StatusError):
    """The peer doesn't know the credential, or none was sent (401)."""


class PermissionDeniedError(StatusError):
    """The credential doesn't allow this (403)."""


class RateLimitedError(StatusError):
    """Too many requests (429)."""

    retryable = True


class UnavailableError(StatusError):
    """The peer or a gateway before it can't serve now (502, 503, 504)."""

    retryable = True


class ServerError(StatusError):
    """The peer failed in another way (other 5xx)."""


class ProtocolError(AiaasError):
    """The peer's answer can't be understood."""


class OutputError(ProtocolError):
    """The answer of a language model doesn't fit the schema that was asked for; `.text` holds it as it came."""

    def __init__(self, message: str, *, text: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class StreamInterruptedError(AiaasError):
    """A stream ended before its end; `.partial` holds what arrived."""

    def __init__(self, message: str, *, partial: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.partial = partial


class TrainingError(AiaasError):
    """A training run failed."""
