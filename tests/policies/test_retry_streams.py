"""A stream that has begun isn't asked for again, whatever it ends with: its text would be given twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import aiaas_sdk as aiaas

CHUNK = {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {}}]}
ERROR = {"error": {"message": "too many", "type": "rate_limit_error", "code": "rate_limit_exceeded", "param": None}}


class Overloaded(ThreadingHTTPServer):
    """Speaks as OpenAI does, and says within the stream that it is overloaded; after `says`, if that is some text."""

    def __init__(self) -> None:
        self.says, self.asked = "so far", 0
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Overloaded

    def do_POST(self) -> None:
        self.server.asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        CHUNK["choices"] = [{"index": 0, "delta": {"content": self.server.says}}]
        for event in (CHUNK, ERROR):
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def overloaded() -> Iterator[Overloaded]:
    with Overloaded() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.mark.parametrize(("says", "asked"), [("so far", 1), ("", 3)], ids=["after content", "before content"])
def test_a_stream_that_has_begun_isnt_asked_for_again(load: Any, overloaded: Overloaded, says: str, asked: int) -> None:
    overloaded.says = says
    address = f"openai+http://127.0.0.1:{overloaded.server_port}/v1#m"
    with load(address, timeout=10, retry=aiaas.Retry(attempts=3, wait=0.01)) as model:
        stream = model.stream("go")
        with pytest.raises(aiaas.AiaasError) as caught:
            stream.result()
        assert stream.text == says
    assert caught.value.status == 429
    assert overloaded.asked == asked
    assert isinstance(caught.value, aiaas.StreamInterruptedError) == bool(says)
