"""What the operating system and TLS say, in the package's own errors."""

from __future__ import annotations

import os
import socket
import ssl

from aiaas_sdk.errors import ConnectError, ConnectionLostError, DeadlineExceededError, TLSError
from aiaas_sdk.transport.origin import Origin

__all__ = ["late", "lost", "no_host", "unreachable"]


def no_host(origin: Origin, error: OSError | UnicodeError) -> ConnectError:
    """The name leads nowhere."""
    if isinstance(error, UnicodeError):
        return ConnectError(f"{origin.host[:80]!r} can't be the name of a host", retryable=False)
    reason = error.strerror or "it doesn't resolve"
    return ConnectError(f"can't find the host {origin.host}: {reason}", hint="Is the name spelled right")


def unreachable(origin: Origin, error: OSError) -> ConnectError:
    """No connection came about; nothing was sent."""
    # a peer that hangs up during the handshake may be restarting: that isn't a verdict on certificates
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TLSError(f"no TLS connection to {origin.where}: {_tls_reason(error)}", hint=_tls_hint(error))
    if isinstance(error, TimeoutError) and not error.errno:
        return ConnectError(f"can't connect to {origin.where}: it doesn't answer", hint="Is the server running there")
    return ConnectError(f"can't connect to {origin.where}: {_reason(error)}", hint="Is the server running there")


def lost(origin: Origin, error: OSError) -> ConnectionLostError:
    """The request was sent, at least in part, and no whole answer came."""
    return ConnectionLostError(f"the connection to {origin.where} was lost: {_reason(error)}")


def late(origin: Origin, connecting: bool) -> DeadlineExceededError:
    what = "no connection to {} came about in time" if connecting else "{} gave no whole answer in time"
    return DeadlineExceededError(what.format(origin.where))


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return _tls_reason(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    verdict = getattr(error, "verify_message", "")
    if verdict:
        return f"its certificate isn't trusted: {verdict}"
    return (error.reason or "the handshake failed").replace("_", " ").lower()


def _tls_hint(error: ssl.SSLError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "If a private authority signed it, name that one's file in SSL_CERT_FILE"
    return "Does the server speak HTTPS on this port"
