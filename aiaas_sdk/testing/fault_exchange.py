"""One request on one connection of the fault server, and what a fault can do with it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from aiaas_sdk.testing.fault_log import Connected, Seen
from aiaas_sdk.testing.fault_model import Answer

__all__ = ["PATIENCE", "Exchange", "read_request"]

PATIENCE = 30.0
"""Seconds that the server waits for a client at most, and that a fault goes on at most."""
LINGER = 1.0
"""Seconds that it listens on after it has hung up: closing at once would take back what was said before."""
_MOST = 1 << 20  # bytes of a request's head
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends a reset


class Exchange:
    """What a fault works with. `seen` and `answer` (the right one) are None before a request has come.

    A fault says what it likes and returns; `kept` tells whether the connection carries another request.
    """

    def __init__(
        self,
        sock: socket.socket,
        connected: Connected,
        closing: threading.Event,
        seen: Seen | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.seen = seen
        self.kept = True
        self._sock, self._connected, self._closing, self._answer = sock, connected, closing, answer
        self._until = time.monotonic() + PATIENCE

    @property
    def answer(self) -> Answer:
        if self._answer is None:
            raise ValueError("this fault acts before a request was read, and needs the answer to one")
        return self._answer

    @property
    def over(self) -> bool:
        """The server is being closed, or the fault has gone on for `PATIENCE`."""
        return self._closing.is_set() or time.monotonic() > self._until

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, data: bytes, size: int, every: float) -> None:
        """Send it in pieces of `size` bytes, with a pause of `every` seconds before each but the first."""
        for start in range(0, len(data), size):
            if start:
                self.pause(every)
            if self.over:
                return
            self.send(data[start : start + size])

    def pause(self, seconds: float) -> None:
        self._closing.wait(min(seconds, PATIENCE))

    def reset(self) -> None:
        """End the connection by a reset; what the client hasn't read yet is lost to it."""
        self.kept = False
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def stall(self) -> None:
        """Say nothing more until the client hangs up."""
        self.kept = False
        listen(self._sock, self._connected, PATIENCE)

    def hang_up(self) -> None:
        """End the connection in an orderly way, wherever that leaves the answer."""
        self.kept = False
        hang_up(self._sock, self._connected)


def hang_up(sock: socket.socket, connected: Connected) -> None:
    with contextlib.suppress(OSError):  # the client was first
        sock.shutdown(socket.SHUT_WR)
    listen(sock, connected, LINGER)


def listen(sock: socket.socket, connected: Connected, seconds: float) -> None:
    """Read and drop what comes until the client hangs up, or the time is over."""
    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                break
        else:
            return
    except TimeoutError:
        return
    except OSError:  # a reset is an end too
        pass
    if connected.ended is None:
        connected.ended = time.monotonic()


def read_request(sock: socket.socket, idle: float) -> tuple[float, str, str, dict[str, str], bytes] | None:
    """Time, method, path, headers and body of the next request; None where the client hangs up.

    What is no HTTP (a TLS hello, say) comes as a request without method and path. Raises TimeoutError where nothing
    comes within `idle` seconds.
    """
    sock.settimeout(idle)
    data = sock.recv(1 << 16)
    sock.settimeout(PATIENCE)
    if data and not data[:1].isalpha():
        return time.monotonic(), "", "", {}, data
    while data and b"\r\n\r\n" not in data:
        more = sock.recv(1 << 16)
        data = data + more if more and len(data) < _MOST else b""
    if not data:
        return None
    moment = time.monotonic()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, *_ = [*first.split(" "), "", ""]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    whole = _body(sock, body, int(length) if length.isdigit() else 0)
    return None if whole is None else (moment, method, path, headers, whole)


def _body(sock: socket.socket, begun: bytes, size: int) -> bytes | None:
    pieces, missing = [begun], size - len(begun)
    while missing > 0:
        piece = sock.recv(min(missing, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
