"""A peer that speaks the Open Inference Protocol, and does to a `map` what peers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Peer(ThreadingHTTPServer):
    """x FP32 [-1,1] -> y = 2x, in JSON.

    Attributes:
        delay: seconds that a call takes.
        most: calls in flight, above which it answers `refusal`; None for any number.
        refuse: told the rows of a call; gives the status to answer instead of 200, or None.
        short: rows that are left out of each answer.
        asked: the rows of each call that was answered, in the order of the calls.
        flying: the calls in flight at the beginning of each call, itself included.
        refused: calls that were answered `refusal`.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay, self.short = 0.0, 0
        self.most: int | None = None
        self.refusal = 429
        self.refuse: Callable[[list[float]], int | None] = lambda rows: None
        self.version = "1"
        self.asked: list[list[float]] = []
        self.flying: list[int] = []
        self.refused = 0
        self.now = 0
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2/models/double"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    server: Peer

    def do_GET(self) -> None:
        if self.path == "/v2":
            self._answer(200, {"name": "doubling", "version": "2", "extensions": []})
        elif self.path.endswith("/ready"):
            self._answer(200, {})
        else:
            described = {"datatype": "FP32", "shape": [-1, 1]}
            document = {"name": "double", "versions": [self.server.version], "platform": ""}
            self._answer(
                200, {**document, "inputs": [{"name": "x", **described}], "outputs": [{"name": "y", **described}]}
            )

    def do_POST(self) -> None:
        peer = self.server
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
        rows = _flat(given["data"])
        with peer.guard:
            peer.now += 1
            peer.flying.append(peer.now)
            status = peer.refusal if peer.most is not None and peer.now > peer.most else peer.refuse(rows)
            peer.refused += status == peer.refusal
        if status is None:
            time.sleep(peer.delay)
        with peer.guard:  # before the answer is sent: the next call may be here sooner than this thread goes on
            peer.now -= 1
        if status is not None:
            self._answer(status, {"error": "not now"})
            return
        data = [2 * row for row in rows][peer.short :]
        output = {"name": "y", "datatype": "FP32", "shape": [len(data), 1], "data": data}
        with peer.guard:
            peer.asked.append(rows)
        self._answer(200, {"model_name": "double", "model_version": peer.version, "outputs": [output]})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def _flat(data: Any) -> list[float]:
    return [value for part in data for value in (part if isinstance(part, list) else [part])]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
