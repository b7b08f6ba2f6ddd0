"""Between a run and its worker processes: a connection of each on 127.0.0.1.

A worker sends lines of JSON: who it is, with the token that its folder holds, then what happens, {"event": ...},
{"log": ...}, {"failed": ...} or {"ended": address}. It is told one byte, STOP (end after this step) or LEAVE (end at
once). Where the connection ends the other side is gone: a worker outlives its run by no more than it takes to see that.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LEAVE", "STOP", "Hearing", "Speaking", "Worker"]

STOP, LEAVE = b"s", b"l"
MAX_LINE = 1 << 26
"""Bytes of a line: an event holds the history of a run."""
PATIENCE = 60.0
"""Seconds that a worker has for the beginning of the conversation."""


@dataclass(eq=False)
class Worker:
    """A worker's end, as the run sees it. `round` counts the restarts."""

    connection: socket.socket
    rank: int = -1
    pid: int = 0
    round: int = -1
    said: bool = False
    unread: bytearray = field(default_factory=bytearray)

    @property
    def known(self) -> bool:
        return self.rank >= 0


class Hearing:
    """The run's side."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self.port: int = self._server.getsockname()[1]
        self.token = secrets.token_hex(16)
        self.workers: list[Worker] = []

    def turn(self, seconds: float) -> Iterator[tuple[Worker, dict[str, Any] | None]]:
        """What was said within this time, first a {"hello": ...}; None where a worker's connection ended."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._server:
                self._accept()
            else:
                yield from self._heard(key.data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            connection, _ = self._server.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, Worker(connection))

    def _heard(self, worker: Worker) -> Iterator[tuple[Worker, dict[str, Any] | None]]:
        try:
            piece = worker.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        worker.unread += piece
        while (end := worker.unread.find(b"\n")) >= 0:
            line = bytes(worker.unread[:end])
            del worker.unread[: end + 1]
            message = json.loads(line) if worker.known else self._hello(worker, line)
            if message is not None:
                yield worker, message
        if not piece or len(worker.unread) > MAX_LINE:
            known = worker.known
            self._drop(worker)
            if known:
                yield worker, None

    def _hello(self, worker: Worker, line: bytes) -> dict[str, Any] | None:
        """A stranger on this machine may find the port; it hasn't the token."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            hello = json.loads(line)
            if secrets.compare_digest(str(hello["token"]), self.token):
                worker.rank, worker.pid, worker.round = int(hello["rank"]), int(hello["pid"]), int(hello["round"])
                self.workers.append(worker)
                return {"hello": worker.rank}
        self._drop(worker)
        return None

    def _drop(self, worker: Worker) -> None:
        with contextlib.suppress(KeyError, ValueError):  # dropped before
            self._selector.unregister(worker.connection)
        worker.connection.close()
        if worker in self.workers:
            self.workers.remove(worker)

    def tell(self, word: bytes) -> None:
        """STOP or LEAVE, to all."""
        for worker in self.workers:
            with contextlib.suppress(OSError):  # it is gone, which the next turn finds
                worker.connection.send(word)

    def close(self) -> None:
        """The workers that are left end."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # all are sockets
        self._selector.close()


class Speaking:
    """A worker's side.

    Args:
        end: is called, in another thread, when the worker should end at once: with LEAVE, or with b"" where the run is
            gone.
    """

    def __init__(self, port: int, token: str, rank: int, round: int, end: Callable[[bytes], object]) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._connection.settimeout(None)
        self._guard = threading.Lock()
        self._end = end
        self.stopped = threading.Event()
        self.say(token=token, rank=rank, pid=os.getpid(), round=round)
        threading.Thread(target=self._listen, name="aiaas-worker", daemon=True).start()

    def _listen(self) -> None:
        word = b""
        with contextlib.suppress(OSError):
            while (word := self._connection.recv(1)) == STOP:
                self.stopped.set()
        self._end(word)

    def say(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._guard:
            self._connection.sendall(line)
