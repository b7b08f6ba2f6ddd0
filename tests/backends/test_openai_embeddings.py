"""What an endpoint says that can't embed, and one that only doesn't know the model: two different errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import aiaas_sdk as aiaas


class Refusing(BaseHTTPRequestHandler):
    """Lists no models, and refuses each POST as planned."""

    protocol_version = "HTTP/1.1"
    plan: tuple[int, bytes] = (404, b"")

    def do_GET(self) -> None:
        self.answer(404, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(*self.plan)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[Callable[[int, bytes], str]]:
    """Gives the address of an endpoint that refuses with this status and body."""
    kind: Any = type("Planned", (Refusing,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def plan(status: int, body: bytes) -> str:
        kind.plan = (status, body)
        return f"openai+http://127.0.0.1:{server.server_port}/v1#m"

    yield plan
    server.shutdown()
    thread.join()
    server.server_close()


NO_EMBEDDINGS = [
    (404, b""),
    (404, b"404 page not found"),  # Go
    (404, b'{"detail":"Not Found"}'),  # FastAPI: LitServe, transformers serve, vLLM without a model that embeds
    (404, b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'),  # llama.cpp's own server
    (404, b"<html><title>404</title>None of our models lives here</html>"),
    (405, b'{"detail":"Method Not Allowed"}'),
    (501, b'{"error":{"code":501,"message":"Not implemented"}}'),
]
NO_MODEL = [
    b'{"error":{"message":"The model `m` does not exist","type":"invalid_request_error","code":"model_not_found"}}',
    b'{"object":"error","message":"The model `m` does not exist.","type":"NotFoundError","param":null,"code":404}',
    b'{"error":{"message":"model \\"m\\" not found, try pulling it first","type":"api_error"}}',
    b'{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}',
]


@pytest.mark.parametrize(("status", "body"), NO_EMBEDDINGS)
def test_an_endpoint_without_embeddings_cant_embed(refusing: Any, load: Any, status: int, body: bytes) -> None:
    with load(refusing(status, body), retry=None, timeout=20) as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"/v1#m has no /embeddings") as caught:
            model.embed("x")
        assert (caught.value.status, caught.value.attempts) == (status, 1)


@pytest.mark.parametrize("body", NO_MODEL)
def test_an_endpoint_without_the_model_says_so(refusing: Any, load: Any, body: bytes) -> None:
    with load(refusing(404, body), retry=None, timeout=20) as model, pytest.raises(aiaas.ModelNotFoundError):
        model.embed("x")


def test_a_wrong_base_url_is_no_missing_verb(refusing: Any, load: Any) -> None:
    with load(refusing(404, b""), retry=None, timeout=20) as model, pytest.raises(aiaas.ModelNotFoundError):
        model.generate("x")
