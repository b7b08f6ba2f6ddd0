"""From an origin to a connection: the name, the addresses, the handshake."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from functools import partial
from typing import Any

from aiaas_sdk.errors import ConnectError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import tls
from aiaas_sdk.transport.connection import Connection
from aiaas_sdk.transport.failures import late, no_host, unreachable
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.steps import READ, WRITE, Steps, blocking, ready

__all__ = ["CONNECT_LIMIT", "connect"]

CONNECT_LIMIT = 5.0
"""Seconds for one connection to be made, also without a deadline; openai-python allows as many."""

QUEUE_PAUSE = 0.02
"""Seconds until a Unix socket whose queue is full is tried again."""

_UNDERWAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR, 10035)  # the last is Windows' WSAEWOULDBLOCK

Address = tuple[Any, ...]  # (family, socket address)


def connect(origin: Origin, network: Network, until: float | None) -> Steps[Connection]:
    """A new connection: to the network's Unix socket, else to the origin's host.

    All addresses of a name are tried, each with its share of the time.

    Raises:
        ConnectError: the name doesn't resolve, nobody answers there, or not within CONNECT_LIMIT.
        TLSError: the certificate or the handshake failed; asked once, whatever other addresses there are.
        DeadlineExceededError: `until` has passed.
    """
    limit = time.monotonic() + CONNECT_LIMIT
    short = until is not None and until < limit
    limit = until if until is not None and short else limit
    path: Any = network.unix_socket
    context = tls.context(network) if origin.secure else None
    try:
        sock = yield from _reached(origin, network, limit) if path is None else _met(path, limit)
        if context is not None:
            sock = yield from _secured(sock, origin, context, limit)
    except ConnectError:
        raise
    except TimeoutError as error:
        raise (late(origin, connecting=True) if short else unreachable(origin, error, _through(path))) from None
    except OSError as error:
        raise unreachable(origin, error, _through(path)) from None
    return Connection(sock, origin)


def _through(path: str | None) -> str:
    return "" if path is None else f" through the Unix socket {path}"


def _reached(origin: Origin, network: Network, limit: float) -> Steps[socket.socket]:
    found = yield from _resolved(origin, limit)
    addresses = [entry for entry in found if network.admits(entry[1][0])]
    if found and not addresses:
        raise ConnectError(f"{origin.host} is at no address that may be asked", retryable=False)
    for position, (family, address) in enumerate(addresses, 1):
        now = time.monotonic()
        share = now + (limit - now) / (len(addresses) - position + 1)
        try:
            return (yield from _dialled(family, address, share))
        except OSError:
            if position == len(addresses):
                raise
    raise ConnectError(f"can't find the host {origin.host}: it has no address")


def _resolved(origin: Origin, limit: float) -> Steps[list[Address]]:
    """The host's addresses. A resolver can't be interrupted, so a thread asks it; a numeric host needs none."""
    look_up = partial(socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM)
    try:
        try:
            found = look_up(flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = yield from blocking(look_up, limit)
    except (socket.gaierror, UnicodeError) as error:
        raise no_host(origin, error) from None
    return [(family, address) for family, _, _, _, address in found]


def _dialled(family: int, address: Any, until: float) -> Steps[socket.socket]:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in _UNDERWAY:
            yield from ready(sock.fileno(), WRITE, until)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _met(path: str, until: float) -> Steps[socket.socket]:
    """A connection to a Unix socket. It comes about at once, or the server has as many waiting as it takes: Linux
    says so then instead of letting us wait."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError:
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
        yield from blocking(partial(time.sleep, QUEUE_PAUSE), until)


def _secured(plain: socket.socket, origin: Origin, context: ssl.SSLContext, until: float) -> Steps[ssl.SSLSocket]:
    try:
        sock = context.wrap_socket(plain, server_hostname=origin.host.rstrip("."), do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    try:
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                yield from ready(sock.fileno(), READ, until)
            except ssl.SSLWantWriteError:
                yield from ready(sock.fileno(), WRITE, until)
            else:
                return sock
    except BaseException:
        sock.close()
        raise
