"""A request at a path without its prefix, or with another one, is told where it belongs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiaas_sdk.server import serve_in_thread
from tests.server.conftest import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serve_in_thread(["m=echo:?x=FP32[-1,3]"]) as url:
        made = Client(url)
        yield made
        made.connection.close()


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/completions", "/v1/completions"),
        ("POST", "/embeddings", "/v1/embeddings"),
        ("POST", "/models", "/v1/models and /v2/models"),
        ("GET", "/models", "/v1/models and /v2/models"),
        ("GET", "/models/m", "/v1/models/m and /v2/models/m"),
        ("POST", "/models/m:predict", "/v1/models/m:predict"),
        ("POST", "/models/m/infer", "/v2/models/m/infer"),
        ("POST", "/models/m/versions/1/infer", "/v2/models/m/versions/1/infer"),
        ("GET", "/models/m/ready", "/v2/models/m/ready"),
        ("GET", "/models/stats", "/v2/models/stats"),
        ("GET", "/health/ready", "/v2/health/ready"),
        ("POST", "/repository/index", "/v2/repository/index"),
        ("POST", "/v2/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/repository/index", "/v2/repository/index"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/openai/v1/embeddings", "/v1/embeddings"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
        ("POST", "/v1/invocations", "/invocations"),
        ("GET", "/v1/ping", "/ping"),
    ],
)
def test_a_path_without_its_prefix_is_told_with_it(client: Client, method: str, path: str, meant: str) -> None:
    answer = client(method, path, {} if method == "POST" else None)
    told = answer.document["error"]
    assert answer.status == 404
    assert (told if isinstance(told, str) else told["message"]) == f"there is nothing at this path, but at {meant}"


@pytest.mark.parametrize("path", ["/nothing", "/v3", "/chat", "/v1/chat", "/%0D%0Amodels", f"/models/{'x' * 400}"])
def test_no_other_path_is_told_of_one(client: Client, path: str) -> None:
    answer = client("POST", path, {})
    told = answer.document["error"]
    assert answer.status == 404
    assert (told if isinstance(told, str) else told["message"]) == "there is nothing at this path"
