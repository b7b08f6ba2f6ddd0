"""How a model's endpoint is reached."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

__all__ = ["PLAIN", "Network"]

_FILES = ("ca", "certificate", "key", "unix_socket")
_WAYS = ("ca", "certificate", "key", "proxy", "http2", "unix_socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How connections to an endpoint are made. Every field may be left out; none turns the check of certificates off.

    Paths become absolute at once; what a file holds is checked by `load`, and again where the file has changed.

    Attributes:
        ca: file of PEM certificates to trust, instead of those that SSL_CERT_FILE or the system names.
        certificate: PEM file of the client certificate, for servers that ask for one.
        key: PEM file of its private key, without a passphrase; None where `certificate` holds both.
        proxy: `http://HOST:PORT`, also `https`, `socks5` or `socks5h`; "none" goes straight to the endpoint; None
            goes by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. It may hold a password and is never shown.
        http2: speak HTTP/2 to an https endpoint that can; needs the extra `http2`.
        unix_socket: path of a Unix socket to connect to instead of the address's host and port, which are still
            what the Host header and the certificate are about.
        transport: an `httpx.BaseTransport` or `httpx.AsyncBaseTransport` (or httpx2's) that carries the requests
            instead of our own connections. Whoever made it closes it.
        connections: as `Limits(connections=...)` says, which is where to set it; a call that finds none free waits
            for one, in turn, until its deadline.
    """

    ca: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    proxy: Literal["none"] | str | None = field(default=None, repr=False)
    http2: bool = False
    unix_socket: str | PathLike[str] | None = None
    transport: Any = field(default=None, hash=False)
    connections: int | None = None

    def admits(self, address: str) -> bool:
        """Whether a connection may go to this address (numeric); a name's others are tried instead."""
        return True

    def __post_init__(self) -> None:
        for name in _FILES:
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        if self.proxy is not None and not (isinstance(self.proxy, str) and self.proxy.strip()):
            raise ValueError('proxy is an address as text, "none", or None to go by the environment')
        if not isinstance(self.http2, bool):
            raise ValueError(f"http2 is True or False, not {type(self.http2).__name__}")
        if self.connections is not None and (type(self.connections) is not int or self.connections < 1):
            raise ValueError(
                f"connections is {self.connections!r}; give a whole number from 1 on, or None for no limit"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("key is given without certificate, whose key it is")
        if self.unix_socket is not None and self.proxy not in (None, "none"):
            raise ValueError("unix_socket and proxy exclude each other: a connection goes one way")
        given = [name for name in _WAYS if getattr(self, name)]
        if self.transport is not None and given:
            raise ValueError(f"transport makes its own connections, so {given[0]} has to be said to it, not here")


def _path(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise ValueError(f"{name} is a path, not {type(value).__name__ if value else 'nothing'}")
    return os.path.abspath(os.path.expanduser(value))


PLAIN = Network()
"""What holds where nothing is said."""
