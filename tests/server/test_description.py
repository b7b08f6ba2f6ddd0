"""The description of the server: every route is in it, and what is asked by it is answered as it says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import create_app
from aiaas_sdk.server.description import PATH, Description

MODELS = ("any=echo:", "one=echo:?x=FP32[-1,3]")
SETTINGS = """
[checks]
# A request may be of the right form and not be for this model, which no schema can say.
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
"""


def described(**options: Any) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """The document of a server, and the operations that it routes."""
    routes = create_app(MODELS, **options)._router.routes
    served = {
        (re.sub(r"{(\w+):\w+}", r"{\1}", route.path), method.lower())
        for route in routes
        for method in route.methods - {"HEAD"}
    }
    last = next(route for route in routes if route.path == PATH)
    return last.endpoint.__self__.document(), served


@pytest.mark.parametrize("options", [{}, {"metrics": False, "page": False}], ids=["all", "less"])
def test_every_route_is_described_and_nothing_else(options: dict[str, Any]) -> None:
    document, served = described(**options)
    assert {(path, method) for path, item in document["paths"].items() for method in item} == served


def test_the_document_is_whole() -> None:
    document, _ = described()
    schemas = document["components"]["schemas"]
    assert {word for word in refs(document) if word not in schemas} == set()
    assert set(schemas) == set(refs(document))
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        for status, answer in operation["responses"].items():
            assert status == "200" or list(answer["content"]) == ["application/json"]


def refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].removeprefix("#/components/schemas/")
        for inner in part.values():
            yield from refs(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from refs(inner)


def test_it_is_served_with_examples_that_the_models_take(serving: Any) -> None:
    client = serving(*MODELS)
    answer = client("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    paths = answer.document["paths"]
    tried = 0
    for path, item in paths.items():
        for media in item.get("post", {}).get("requestBody", {"content": {}})["content"].values():
            for model, example in media.get("examples", {}).items():
                if model in ("any", "one"):
                    told = client("POST", path.format(model=model, version="1"), example["value"])
                    assert told.status == 200, (path, told.body)
                    tried += 1
    assert tried > 8


def test_what_a_guarded_server_wants_is_told() -> None:
    app = create_app(MODELS)
    document = Description(app.hosting, [], guarded=True).document()
    assert document["security"] == [{"key": []}]
    assert list(document["paths"]) == ["/openapi.json"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/any:predict", {"inputs": {}}),
        ("/v1/models/any:predict", {"instances": [{}]}),
        ("/v2/models/any/generate", {"text_input": "a", "parameters": False}),
    ],
)
def test_what_generated_requests_found_stays_mended(echo: Any, path: str, body: Any) -> None:
    answer = echo("POST", path, body)
    assert answer.status == 400
    assert answer.error


@pytest.mark.slow
@pytest.mark.peer
def test_generated_requests_are_answered_as_described(
    peer_python: Callable[[str], Path], tmp_path: Path, serving: Any
) -> None:
    """schemathesis: right and wrong requests to every operation, from a fixed seed."""
    program = peer_python("schemathesis").with_name("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    url = f"{serving(*MODELS).url}/openapi.json"
    options = ["--seed=1", "--max-examples=6", "--phases=examples,coverage,fuzzing", "--request-timeout=5"]
    more = ["--no-color", "--workers=2", "--warnings=off", "--suppress-health-check=all", "--no-shrink"]
    done = subprocess.run([program, "run", url, *options, *more], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ generated, \d+ passed", done.stdout), done.stdout[-1000:]
