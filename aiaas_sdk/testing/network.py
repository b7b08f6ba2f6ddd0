"""No network: whatever in this process connects to another machine fails at once.

    with no_network():
        httpx.get("https://example.com")       # PrivacyError: the network is switched off here

Python's sockets are watched, whichever library uses them, asyncio among them. Libraries that bring their own (gRPC's
core, uvloop) and other processes are not.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from aiaas_sdk.errors import ConfigError, PrivacyError

__all__ = ["no_network"]

_HERE = frozenset(("localhost", "localhost.localdomain", "ip6-localhost", "", "0.0.0.0", "::"))
"""Hosts that need no network to be looked up; the last three stand for "any" where a server listens."""
_INSIDE = frozenset(getattr(socket, name, None) for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG"))
"""Families of sockets that don't leave the machine."""
_METHODS = {"connect": "connect to", "connect_ex": "connect to", "sendto": "send to"}


@contextmanager
def no_network(allow: Collection[str] = ()) -> Iterator[None]:
    """Forbid connections to other machines for the length of a `with`, in all threads of this process.

    Loopback addresses and Unix sockets stay allowed. Of several nested ones, each has to allow a host.

    Args:
        allow: names or addresses of hosts that may be reached.

    Raises:
        PrivacyError: (from whatever connects) it isn't a ConnectionError, so that nobody tries again or elsewhere.
    """
    guard = _Guard(allow)
    methods = {name: socket.socket.__dict__.get(name) for name in _METHODS}
    lookup = socket.getaddrinfo
    for name, doing in _METHODS.items():
        setattr(socket.socket, name, guard.guarded(getattr(socket.socket, name), doing))
    socket.getaddrinfo = guard.guarded_lookup(lookup)
    try:
        yield
    finally:
        socket.getaddrinfo = lookup
        for name, method in methods.items():
            if method is None:
                delattr(socket.socket, name)  # that of the C class shows again
            else:
                setattr(socket.socket, name, method)


class _Guard:
    """What may be reached: this machine, the hosts that are allowed, and the addresses that these have."""

    def __init__(self, allow: Collection[str]) -> None:
        if isinstance(allow, str):
            raise ConfigError(f"allow is the text {allow!r}", hint=f"Give a list: [{allow!r}]")
        self._allowed = {host.lower() for host in allow}

    def guarded(self, method: Any, doing: str) -> Any:
        """A method of sockets whose last argument is an address."""

        @functools.wraps(method)
        def call(sock: socket.socket, *arguments: Any) -> Any:
            if sock.family not in _INSIDE and (error := self._objection(arguments[-1], doing)) is not None:
                if sock.type == socket.SOCK_STREAM:
                    sock.close()  # the standard library closes it for an OSError alone, and would leave a warning
                raise error
            return method(sock, *arguments)

        return call

    def guarded_lookup(self, lookup: Any) -> Any:
        @functools.wraps(lookup)
        def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            name = _text(host)
            if name in self._allowed:
                found = lookup(host, port, *arguments, **options)
                self._allowed.update(str(entry[4][0]) for entry in found)
                return found
            if name not in _HERE and _literal(name) is None:
                raise _forbidden("look up", name, port)
            return lookup(host, port, *arguments, **options)

        return getaddrinfo

    def _objection(self, address: Any, doing: str) -> PrivacyError | None:
        host, port = (address[0], address[1]) if isinstance(address, tuple) and len(address) > 1 else (address, None)
        name = _text(host)
        literal = _literal(name)
        here = name == "localhost" if literal is None else literal.is_loopback
        return None if here or name in self._allowed else _forbidden(doing, name, port)


def _text(host: Any) -> str:
    """A host as sockets take it; None stands for this machine."""
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    return "" if host is None else str(host).lower()


def _literal(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _forbidden(doing: str, host: str, port: Any) -> PrivacyError:
    where = host if port is None else f"{host} port {port}"
    return PrivacyError(
        f"the network is switched off here: this would {doing} {where}",
        hint="Record the model's calls (pytest --aiaas=record), or allow the host (aiaas_allow_hosts)",
    )
