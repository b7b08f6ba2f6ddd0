"""What gRPC says of a call that failed, as a reply with HTTP's status or as an error of ours.

gRPC has one status, UNAVAILABLE, for a peer that was never reached, a connection that was lost and a peer that says it
can't serve now. Only its words tell them apart; those of the first two come from gRPC's own core.
"""

from __future__ import annotations

import re
import time
from typing import Any

from aiaas_grpc.forking import grpc
from aiaas_grpc.statuses import status_of
from aiaas_sdk.errors import ConnectError, ConnectionLostError, TLSError
from aiaas_sdk.flow import Reply
from aiaas_sdk.transport.failures import late
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.wire.status import clean

__all__ = ["CODE", "failed"]

CODE = "grpc-status"
"""The header of a reply that says no: gRPC's name of the status."""
EARLY = 0.02
"""Seconds by which gRPC, which rounds, may find a call late before its time."""

_UNREACHED = re.compile(r"failed to connect to all|errors? resolving|DNS resolution failed|.*handshake failed")
_UNTRUSTED = re.compile(r"(?i)handshake failed|certificate|verification check failed")
_VERDICTS = re.compile(
    r"CERTIFICATE_VERIFY_FAILED[^:]*: ([^:\]]+)|(Hostname Verification Check failed)|(Peer name .* is not in peer cert)"
    r"|routines:[^:]*:(\w+)"
)
_LOST = re.compile(
    r"(?i)socket closed|connection reset|broken pipe|recvmsg|sendmsg|stream removed|goaway|rst_stream|ping timeout"
    r"|keepalive|connection (?:aborted|dropped)|transport (?:closed|is closing)|endpoint clos|cancelling all calls"
)


def failed(error: Any, origin: Origin, through: str, until: float | None) -> Reply:
    """The reply of a peer that said no.

    Args:
        error: what gRPC raised, or a call that ended without a response.
        through: completes "can't connect to HOST:PORT ...", where a proxy is on the way.
        until: the moment (monotonic) by which it had to be over.

    Raises:
        ConnectError, TLSError: the peer was never reached.
        ConnectionLostError: it was, and no whole answer came.
        DeadlineExceededError: the time was over.
    """
    code, words = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and until is not None and time.monotonic() >= until - EARLY:
        raise late(origin, connecting=False)
    if code is grpc.StatusCode.UNAVAILABLE and _UNREACHED.match(words):
        raise _unreached(f"{origin.where}{through}", origin.secure, words)
    if _of_the_core(code) and _LOST.search(words):
        raise ConnectionLostError(f"the connection to {origin.where}{through} was lost: {clean(words, 200)}")
    headers = {**_headers_of(error), CODE: code.name}
    _heed_pushback(headers)
    return Reply(status_of(code, words), headers, words.encode())


def _of_the_core(code: Any) -> bool:
    status = grpc.StatusCode
    return code in (status.UNAVAILABLE, status.CANCELLED, status.UNKNOWN, status.INTERNAL)


def _unreached(where: str, secure: bool, words: str) -> ConnectError:
    if secure and _UNTRUSTED.search(words):
        return TLSError(f"no TLS connection to {where}: {_reason(words)}", hint=_tls_hint(words))
    if "http1.x" in words:
        hint = "What answers there speaks HTTP: servers have a port of its own for gRPC"
        return ConnectError(f"can't connect to {where}: it doesn't speak gRPC", hint=hint, retryable=False)
    return ConnectError(f"can't connect to {where}: {_reason(words)}", hint="Is the server running there?")


def _reason(words: str) -> str:
    """The last of the causes that gRPC strings together: what the operating system or TLS said."""
    told = re.sub(r".*(?:Failed to connect to remote host|: ipv[46]:[^ ]+|unix:[^ ]+): (?:connect: )?", "", words)
    told = re.sub(r" \(\d+\)$", "", told)
    if (verdict := _VERDICTS.search(told)) is not None:
        told = next(filter(None, verdict.groups())).replace("_", " ").lower()
    return clean(told, 200)


def _tls_hint(words: str) -> str:
    if "WRONG_VERSION_NUMBER" in words:
        return "Does the server speak TLS on this port? grpc:// is without"
    return "If a private authority signed its certificate, name that one's file: network=Network(ca=...)"


# ---------------------------------------------------------------- metadata
def _headers_of(call: Any) -> dict[str, str]:
    """The metadata of an answer that is text, as headers."""
    found = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
    return {key: value for key, value in found if isinstance(value, str)}


def _heed_pushback(headers: dict[str, str]) -> None:
    """gRPC's word for how long to wait; negative or unreadable means: not again (grpc/proposal A6)."""
    text = headers.pop("grpc-retry-pushback-ms", None)
    if text is None:
        return
    if re.fullmatch(r"[0-9]{1,9}", text):
        headers["retry-after-ms"] = text
    else:
        headers["x-should-retry"] = "false"
