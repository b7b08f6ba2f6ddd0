"""An endpoint on real sockets that behaves as a test says, and counts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

METADATA = {
    "name": "m",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
}


class Endpoint:
    """Doubles `x`. `behave(n)` is asked at the n-th inference, from 0: None lets it pass, else status and headers."""

    def __init__(self) -> None:
        self.behave: Callable[[int], tuple[int, dict[str, str]] | None] = lambda n: None
        self.opening: Callable[[], int] = lambda: 200
        self.seen: list[tuple[float, dict[str, str], dict[str, Any]]] = []
        self.running = self.most = 0
        self._guard = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                body = {"name": "test", "version": "1", "extensions": []} if self.path == "/v2" else METADATA
                self._say(outer.opening(), body, {})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, answer = outer._answer(dict(self.headers), asked)
                self._say(status, answer, headers)

            def _say(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
                data = json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in {**headers, "content-length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v2/models/m"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer(self, headers: dict[str, str], asked: dict[str, Any]) -> tuple[int, dict[str, str], dict[str, Any]]:
        with self._guard:
            number = len(self.seen)
            self.seen.append((time.monotonic(), {k.lower(): v for k, v in headers.items()}, asked))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            refused = self.behave(number)
        finally:
            with self._guard:
                self.running -= 1
        if refused is not None:
            return refused[0], refused[1], {"error": "told to"}
        x = asked["inputs"][0]
        y = {"name": "y", "datatype": "FP32", "shape": x["shape"], "data": [2 * value for value in x["data"]]}
        return 200, {}, {"model_name": "m", "id": asked.get("id"), "outputs": [y]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()
