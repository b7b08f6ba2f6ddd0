"""A server for the tests of one module, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from aiaas_sdk.server import serve_in_thread


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an answer that says no, in the one shape that such an answer has."""
        assert self.headers["content-type"] == "application/json"
        assert list(self.document) == ["error"]
        assert isinstance(self.document["error"], str)
        assert "Traceback" not in self.document["error"]
        return self.document["error"]


class Client:
    """Requests on one kept connection, as raw as http.client gives them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self.host, self.port = url, parts.hostname or "", parts.port or 0
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=20)

    def __call__(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, raw: bool = False
    ) -> Answer:
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        self.connection.request(method, path, body, dict(headers or {}))
        reply = self.connection.getresponse()
        return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def send(self, data: bytes, seconds: float = 10.0) -> bytes:
        """Bytes on a connection of their own, and all that comes back until it closes or is silent."""
        with socket.create_connection((self.host, self.port), timeout=seconds) as stream:
            stream.sendall(data)
            came = b""
            try:
                while piece := stream.recv(65536):
                    came += piece
            except (TimeoutError, ConnectionError):
                pass
            return came


@pytest.fixture
def serving() -> Iterator[Callable[..., Client]]:
    """Starts servers, each with a client; all end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*targets: str, **options: Any) -> Client:
            client = Client(stack.enter_context(serve_in_thread(targets, **options)))
            stack.callback(client.connection.close)
            return client

        yield start


@pytest.fixture(scope="module")
def echo() -> Iterator[Client]:
    """A server with `any` (takes anything) and `pair` (x FP32 [-1,3], s BYTES [-1])."""
    with serve_in_thread(["any=echo:", "pair=echo:?x=FP32[-1,3]&s=BYTES[-1]", "one=echo:?x=FP32[-1,3]"]) as url:
        client = Client(url)
        yield client
        client.connection.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model that does what its rows say; see `lab.py`. It is installed for this."""
    folder = tmp_path_factory.mktemp("lab")
    installed = folder / "aiaas_lab-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-lab\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[aiaas_sdk.backends]\nlab = tests.server.lab\n")
    sys.path.insert(0, str(folder))
    yield "lab:"
    sys.path.remove(str(folder))
