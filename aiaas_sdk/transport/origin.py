"""Whom a request goes to."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from aiaas_sdk.errors import AddressError

__all__ = ["Origin", "origin_of"]

PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port: what a connection, and a credential, belongs to."""

    scheme: str
    host: str
    port: int

    @property
    def where(self) -> str:
        """`host:port`, for messages and the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def secure(self) -> bool:
        return self.scheme == "https"


@lru_cache(512)
def origin_of(url: str) -> Origin:
    """The origin of an absolute address.

    Raises:
        AddressError: it isn't `http://` or `https://` with a host. It isn't repeated: it could hold a key.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in PORTS:
        raise AddressError("no request can be sent to an address of this form", hint="Write https://HOST:PORT/PATH")
    return Origin(parts.scheme, host, PORTS[parts.scheme] if port is None else port)
