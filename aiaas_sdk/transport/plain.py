"""The sender of the plain face: sockets, and a list of idle ones."""

from __future__ import annotations

import os
import select
import socket
import threading
import time

from aiaas_sdk.errors import ConnectionLostError, DeadlineExceededError, UnsupportedOperationError
from aiaas_sdk.flow import Buffer, Reply, Request
from aiaas_sdk.transport.exchange import Exchange, Origin, origin_of, tls, unreachable

__all__ = ["HttpSender"]

CONNECT_LIMIT = 5.0
"""Seconds for one connection to be made, also without a deadline."""
PIECE = 1 << 18


class HttpSender:
    """Sends over HTTP/1.1. Safe across threads; after a fork the child makes its own connections."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[socket.socket]] = {}
        self._guard, self._process = threading.Lock(), os.getpid()

    def send(self, request: Request, until: float | None) -> Reply:
        """The whole reply. A kept connection that the peer had closed is replaced once, silently."""
        origin = origin_of(request.url)
        exchange = Exchange(request)  # first: a request that can't be written needs no connection
        kept = self._take(origin)
        if kept is not None:
            try:
                return self._exchange(kept, exchange, request, origin, until)
            except ConnectionLostError:
                if exchange.answered:
                    raise
                exchange = Exchange(request)
        return self._exchange(self._connect(origin, until), exchange, request, origin, until)

    def _exchange(
        self, sock: socket.socket, exchange: Exchange, request: Request, origin: Origin, until: float | None
    ) -> Reply:
        try:
            for part in (exchange.head, *request.body):
                sock.settimeout(_left(until))
                sock.sendall(part)
            while exchange.reply is None:
                sock.settimeout(_left(until))
                exchange.feed(sock.recv(PIECE))
        except TimeoutError:
            sock.close()
            raise DeadlineExceededError("no whole answer came in time") from None
        except OSError as error:
            sock.close()
            raise ConnectionLostError(f"the connection was lost: {error.strerror}") from None
        except BaseException:
            sock.close()
            raise
        self._keep(origin, sock) if exchange.reusable else sock.close()
        return exchange.reply

    def _connect(self, origin: Origin, until: float | None) -> socket.socket:
        scheme, host, port = origin
        try:
            left = _left(until)
            limit = CONNECT_LIMIT if left is None else min(left, CONNECT_LIMIT)
            sock = socket.create_connection((host, port), limit)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return tls().wrap_socket(sock, server_hostname=host) if scheme == "https" else sock
        except TimeoutError:
            raise DeadlineExceededError(f"no connection to {host}:{port} came about in time") from None
        except OSError as error:
            raise unreachable(origin, error) from None

    def _take(self, origin: Origin) -> socket.socket | None:
        with self._guard:
            if self._process != os.getpid():  # the parent's sockets stay the parent's
                self._idle, self._process = {}, os.getpid()
            idle = self._idle.get(origin, [])
            while idle:
                sock = idle.pop()
                if not select.select([sock], [], [], 0)[0]:  # readable while idle: the peer has closed it
                    return sock
                sock.close()
        return None

    def _keep(self, origin: Origin, sock: socket.socket) -> None:
        with self._guard:
            self._idle.setdefault(origin, []).append(sock)

    def open(self, request: Request, until: float | None) -> Reply:
        raise UnsupportedOperationError("streamed answers aren't available in this version")

    def read(self, reply: Reply, until: float | None) -> Buffer:
        raise UnsupportedOperationError("streamed answers aren't available in this version")

    def release(self, reply: Reply) -> None:
        """Nothing is held: replies are whole."""

    def close(self) -> None:
        with self._guard:
            socks = [sock for idle in self._idle.values() for sock in idle]
            self._idle = {}
        for sock in socks:
            sock.close()


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
