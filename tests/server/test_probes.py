"""Probes: alive whatever the models do, ready when all can serve."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from aiaas_sdk.server import create_app

LIVE = ("/livez", "/healthz", "/v2/health/live")
READY = ("/readyz", "/health", "/v2/health/ready", "/ping")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", [*LIVE, *READY])
def test_a_server_that_serves_is_alive_and_ready(echo: Any, path: str, method: str) -> None:
    answer = echo(method, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == b"" if method == "HEAD" else answer.document in ({"live": True}, {"ready": True})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping"])
def test_nothing_can_be_sent_to_a_probe(echo: Any, path: str) -> None:
    assert echo("POST", path, b"{}").status == 405


def test_the_version_is_text(echo: Any) -> None:
    answer = echo("GET", "/version")
    assert (answer.status, answer.body) == (200, __import__("aiaas_sdk").__version__.encode())
    assert answer.headers["content-type"].startswith("text/plain")


def test_whoever_isnt_a_browser_is_told_that_the_server_is_alive(echo: Any) -> None:
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = echo("GET", "/", None, accept)
        assert (answer.status, answer.document) == (200, {"status": "alive"})


@pytest.mark.parametrize("path", READY)
def test_while_a_model_behind_an_endpoint_is_missing_the_server_lives_and_isnt_ready(serving: Any, path: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        client = serving("here=echo:", f"far=http://127.0.0.1:{port}/v2/models/far")
        answer = client("GET", path)
        assert answer.status == 503
        assert "far" in answer.error
        assert client("HEAD", path).status == 503
        assert [client("GET", live).status for live in LIVE] == [200] * 3
        assert client("GET", "/v2/models/here/ready").status == 200


@pytest.mark.parametrize(("path", "status"), [*((path, 200) for path in LIVE), *((path, 503) for path in READY)])
def test_a_server_that_ends_lives_and_isnt_ready(path: str, status: int) -> None:
    app = create_app(["one=echo:"])
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
        }
        async with app.hosting.running():
            await app.hosting.open()
            app.draining = True
            await app({**scope, "headers": [], "query_string": b"", "client": ("127.0.0.1", 1)}, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == status
    assert (b"shutting down" in sent[1]["body"]) is (status == 503)
