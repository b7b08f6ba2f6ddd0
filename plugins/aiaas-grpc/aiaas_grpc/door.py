"""Who may call, over gRPC: the keys, limits and certificate of the HTTP server beside it, and the memory for messages.

The key is in the metadata, `authorization: Bearer KEY` or `x-api-key: KEY`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import HEALTH, SERVICE
from aiaas_sdk.server.allowances import UNLIMITED, counted
from aiaas_sdk.server.app import App
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.tls import Certificate

__all__ = ["Door", "credentials"]

_OPEN = frozenset((f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", f"/{HEALTH}/Check"))
"""What needs no key, as the probes over HTTP."""
_COUNTED = f"/{SERVICE}/ModelInfer"
_PROBE = 4 * 1024
"""Bytes of a probe that is answered however little memory is left: a server that is full isn't dead."""


class Door:
    """The door of an application."""

    def __init__(self, app: App) -> None:
        self._access, self._room = app.access, app.room

    def held(self, method: str, size: int) -> AbstractContextManager[None]:
        """Memory for a message of so many bytes, of those that the bodies over HTTP have, for the length of a request.

        gRPC gives a message when it is whole: this counts it before anything is done with it, the caller's key
        included.

        Raises:
            RefusedError: 503, there is none.
        """
        return nullcontext() if method in _OPEN and size <= _PROBE else self._room.taken(size)

    @asynccontextmanager
    async def opened(self, method: str, headers: Mapping[str, str]) -> AsyncIterator[None]:
        """For the length of a call.

        Raises:
            RefusedError: 401 without a good key, 429 where its limits are reached.
        """
        if self._access is None:
            yield
            return
        await self._access.admitted(headers, open=method in _OPEN)
        with self.counted() if method == _COUNTED else nullcontext():
            yield

    def counted(self) -> AbstractContextManager[None]:
        """For the length of a request, of which a stream brings several.

        Raises:
            RefusedError: 429.
        """
        asks = caller()
        if self._access is None or asks.limits == UNLIMITED:
            return nullcontext()
        return counted(self._access.allowance(asks), 0.0)


def credentials(certificate: Certificate) -> Any:
    """A server's credentials, which follow the certificate when it is renewed."""
    held = [certificate.pem]

    def renewed() -> Any:
        if certificate.pem is held[0]:
            return None
        held[0] = certificate.pem
        return grpc.ssl_server_certificate_configuration([held[0]])

    first = grpc.ssl_server_certificate_configuration([held[0]])
    return grpc.dynamic_ssl_server_credentials(first, renewed, False)
