"""What the operating system and TLS say, in the package's own errors."""

from __future__ import annotations

import os
import socket
import ssl

from aiaas_sdk.errors import AiaasError, ConnectError, ConnectionLostError, DeadlineExceededError, TLSError
from aiaas_sdk.transport.origin import Origin

__all__ = ["crowded", "late", "lost", "no_host", "unreachable"]


def no_host(origin: Origin, error: OSError | UnicodeError) -> ConnectError:
    """The name leads nowhere."""
    if isinstance(error, UnicodeError):
        return ConnectError(f"{origin.host[:80]!r} can't be the name of a host", retryable=False)
    reason = error.strerror or "it doesn't resolve"
    return ConnectError(f"can't find the host {origin.host}: {reason}", hint="Is the name spelled right?")


def unreachable(origin: Origin, error: OSError, through: str = "") -> ConnectError:
    """No connection came about; nothing was sent."""
    where = f"{origin.where}{through}"
    # a peer that hangs up during the handshake may be restarting: that isn't a verdict on certificates
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TLSError(f"no TLS connection to {where}: {_tls_reason(error)}", hint=_tls_hint(error))
    reason = "it doesn't answer" if isinstance(error, TimeoutError) and not error.errno else _reason(error)
    return ConnectError(f"can't connect to {where}: {reason}", hint="Is the server running there?")


def lost(origin: Origin, error: OSError, through: str = "") -> AiaasError:
    """The request was sent, at least in part, and no whole answer came."""
    if _refuses_certificate(error):  # under TLS 1.3 a server looks at it only after the client's handshake is over
        return unreachable(origin, error, through)
    return ConnectionLostError(f"the connection to {origin.where}{through} was lost: {_reason(error)}")


def crowded(origin: Origin, connections: int) -> DeadlineExceededError:
    """No place came free in time."""
    return DeadlineExceededError(
        f"the call ran out of time waiting for a connection to {origin.where}: all {connections} were in use",
        hint="Raise Network(connections=...), or make fewer calls at once",
    )


def late(origin: Origin, connecting: bool) -> DeadlineExceededError:
    what = "no connection to {} came about in time" if connecting else "{} gave no whole answer in time"
    return DeadlineExceededError(what.format(origin.where))


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return _tls_reason(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    verdict = getattr(error, "verify_message", "")
    if verdict:
        return f"its certificate isn't trusted: {verdict}"
    return (error.reason or "the handshake failed").replace("_", " ").lower()


def _tls_hint(error: ssl.SSLError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "If a private authority signed it, name that one's file: network=Network(ca=...), or SSL_CERT_FILE"
    if _refuses_certificate(error):
        return "The server wants a client certificate that it knows: network=Network(certificate=..., key=...)"
    return "Does the server speak HTTPS on this port?"


def _refuses_certificate(error: OSError) -> bool:
    """Whether the peer's alert is about our certificate (RFC 8446 6.2)."""
    reason = getattr(error, "reason", None) or ""
    return isinstance(error, ssl.SSLError) and "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
