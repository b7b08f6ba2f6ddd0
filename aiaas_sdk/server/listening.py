"""The socket that a server listens on."""

from __future__ import annotations

import ipaddress
import socket

from aiaas_sdk.errors import ConfigError

__all__ = ["is_loopback", "listening", "reserved"]


def listening(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to the port, and not listening: who comes while models are opened is refused at once, and
    doesn't wait in vain.

    Args:
        shared: other processes of this server listen there, too; the kernel deals the connections out.

    Raises:
        ConfigError: it can't be bound to.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"can't listen on {host}:{port}: {why}", hint="Choose another port, or 0 for a free one"
        ) from None


def reserved(host: str, port: int) -> socket.socket:
    """A socket that keeps the port for several processes of this server, and from any other.

    Raises:
        ConfigError: it is taken, or this system can't share a port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("several workers can't share a port on this system", hint="Serve with workers=1")
    with listening(host, port) as alone:  # says whether somebody else has it, which a shared one wouldn't
        port = alone.getsockname()[1]
    kept = listening(host, port, shared=True)
    # another server that asks for the port by itself is refused it from now on
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return kept


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
