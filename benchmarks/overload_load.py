"""Load for a server on this machine, in two ways, in one loop over epoll.

Closed: N connections, each with one request under way. Open: requests at a fixed rate, whatever becomes of them, each
on a connection that is idle or new. A process of its own, told by lines of JSON on stdin:
`{"port", "request" (a file), "seconds", "deadline", "clients" or "rate"}`; each is answered with one line, a row for
each second: how many were sent, answered with 200 in time (`good`) or too late (`late`), refused (429, 503, 504),
answered otherwise (`other`), lost (sent, and the connection ended) or not taken (`closed`: nobody listened), the times
of the good ones, and the versions that answered. It costs about 20 us a request.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from servers_load import whole

MOST = 900  # connections; the server holds 1,000
REFUSED = (b"429", b"503", b"504")
VERSION = re.compile(rb'"model_version":"([^"]*)"')


class Connection:
    """One connection, and the request under way on it."""

    __slots__ = ("begun", "came", "stream")

    def __init__(self, stream: socket.socket) -> None:
        self.stream, self.begun, self.came = stream, 0.0, b""


class Load:
    """A turn of load."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._port, self._request = told["port"], Path(told["request"]).read_bytes()
        self._seconds, self._deadline, self._rate = told["seconds"], told["deadline"], told.get("rate")
        self._clients = told.get("clients", 0)
        self._poll = select.epoll()
        self._all: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._rows: list[Counter[str]] = []
        self._times: list[list[float]] = []
        self._versions: Counter[str] = Counter()
        self._end = 0.0

    def run(self) -> dict[str, Any]:
        self._begun = time.perf_counter()
        self._end = self._begun + self._seconds
        for _ in range(self._clients):
            self._send()
        sent = 0
        while (now := time.perf_counter()) < self._end:
            if self._rate is None:
                for _ in range(self._clients - (len(self._all) - len(self._idle))):
                    self._send()
                wait = 0.1
            else:
                due = int((now - self._begun) * self._rate)
                while sent < due:
                    self._send()
                    sent += 1
                wait = max(0.0, self._begun + (sent + 1) / self._rate - time.perf_counter())
            self._read(wait)
        end = time.perf_counter() + self._deadline + 1
        while len(self._idle) < len(self._all) and time.perf_counter() < end:  # what is under way still counts
            self._read(0.1)
        return self._told()

    # ------------------------------------------------------------ one request
    def _count(self, what: str) -> None:
        place = int(min(time.perf_counter(), self._end - 1e-6) - self._begun)
        while len(self._rows) <= place:
            self._rows.append(Counter())
            self._times.append([])
        self._rows[place][what] += 1

    def _send(self) -> None:
        connection = self._idle.pop() if self._idle else self._connected()
        if connection is None:
            return
        connection.came, connection.begun = b"", time.perf_counter()
        self._count("sent")
        try:
            connection.stream.sendall(self._request)
        except OSError:
            self._lose(connection)

    def _connected(self) -> Connection | None:
        if len(self._all) >= MOST:
            self._count("held back")
            return None
        try:
            stream = socket.create_connection(("127.0.0.1", self._port), timeout=2)
        except OSError:
            self._count("closed")
            time.sleep(0.005)
            return None
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._all[stream.fileno()] = Connection(stream)
        self._poll.register(stream, select.EPOLLIN)
        return connection

    def _read(self, wait: float) -> None:
        for number, _ in self._poll.poll(wait):
            connection = self._all[number]
            try:
                data = connection.stream.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self._lose(connection)
                continue
            connection.came += data
            if whole(connection.came):
                self._answered(connection)

    def _lose(self, connection: Connection) -> None:
        """The connection has ended: an idle one may; a request that it had is lost."""
        self._end_of(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._count("lost")

    def _end_of(self, connection: Connection) -> None:
        del self._all[connection.stream.fileno()]
        connection.stream.close()

    def _answered(self, connection: Connection) -> None:
        took, came = time.perf_counter() - connection.begun, connection.came
        status = came[9:12]
        if status == b"200":
            self._count("good" if took <= self._deadline else "late")
            self._times[-1].append(took)
            if found := VERSION.search(came):
                self._versions[found[1].decode()] += 1
        else:
            self._count("refused" if status in REFUSED else "other")
        if b"connection: close" in came[:1000].lower():
            self._end_of(connection)
        else:
            self._idle.append(connection)

    def _told(self) -> dict[str, Any]:
        for connection in list(self._all.values()):
            if connection not in self._idle:
                self._count("lost")
            self._end_of(connection)
        self._poll.close()
        rows = [{**row, "times": times} for row, times in zip(self._rows, self._times, strict=True)]
        return {"rows": rows, "versions": self._versions}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(Load(json.loads(line)).run()), flush=True)
