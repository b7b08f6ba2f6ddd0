"""Served names with "/", as the ids of OpenAI's API have it: asked as they are, and as %2F."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from starlette.routing import Route

import aiaas_sdk as aiaas
from aiaas_sdk.server import create_app, serve_in_thread
from aiaas_sdk.server.paths import HIDDEN, WORDS
from tests.server.bundles import save
from tests.server.conftest import Client

NAMES = ("org/one", "org%2Fone", "org%2fone")
ASKED = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A server with `org/one`, beside `org`, which has no input of that name."""
    with serve_in_thread(["org/one=echo:?x=FP32[-1,3]", "org=echo:?y=FP32[-1,2]"], management=True) as url:
        made = Client(url)
        yield made
        made.connection.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_path_of_a_model_takes_its_whole_name(client: Client, name: str) -> None:
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        assert client("GET", path).document["name"] == "org/one"
        assert client("GET", f"{path}/ready").document["ready"] is True
        assert client("GET", f"{path}/config").document["name"] == "org/one"
        assert client("GET", f"{path}/stats").document["model_stats"][0]["name"] == "org/one"
        assert client("POST", f"{path}/infer", ASKED).document["outputs"][0]["data"] == [1, 2, 3]
        assert client("GET", f"{path}/infer").status == 405
        assert client("POST", f"{path}/explain", ASKED).status in (200, 400)
        assert client("POST", f"{path}/generate", {"text_input": "a b"}).document["text_output"] == "a b"
    assert client("POST", f"/v1/models/{name}:predict", {"instances": [[1, 2, 3]]}).status == 200
    assert client("POST", f"/v2/repository/models/{name}/load", {}).status == 200
    assert client("GET", "/v2/models/org").document["inputs"][0]["name"] == "y"


@pytest.mark.parametrize("name", NAMES)
def test_our_own_client_takes_them_too(client: Client, load: Any, name: str) -> None:
    with load(f"{client.url}/v2/models/{name}") as model:
        assert model.info().name == "org/one"
        assert model.predict(np.ones((1, 3), np.float32))["x"].sum() == 3
    with load(f"{client.url}/v2/models/{name}/versions/1") as model:
        assert model.info().version == "1"
        assert model.predict(np.ones((1, 3), np.float32))["x"].shape == (1, 3)
    with load(client.url, model="org/one") as model:
        assert model.info().name == "org/one"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "org/..",
        "../one",
        "org/../one",
        "org//one",
        "/org/one",
        "org/one/",
        "org\\one",
        "one",
        "org/one\r\n",
        "org/one?",
    ],
)
def test_no_other_name_is_one(client: Client, name: str) -> None:
    """K04: decoded once, whichever slashes."""
    for text in (
        quote(name, safe=""),
        quote(quote(name, safe=""), safe=""),
        quote(name, safe="/").replace("//", "/%2F"),
    ):
        for end in ("", "/ready", "/config", "/stats"):
            assert client("GET", f"/v2/models/{text}{end}").status in (404, 405), text
        if ".." in name:
            assert client("POST", f"/v2/repository/models/{text}/load", {}).status == 404
        answer = client("POST", f"/v2/models/{text}/infer", ASKED)
        assert answer.status in (404, 405)
        assert "\r" not in answer.error
    assert client("GET", "/v2/models/org/one").status == 200


@pytest.mark.parametrize("word", WORDS)
def test_a_name_that_would_mean_two_things_is_refused_at_the_start(word: str) -> None:
    for name in (f"org/{word}", f"org/{word}/one"):
        with pytest.raises(
            aiaas.AddressError, match=rf"'{name}' can't be the name of a served model: '{word}' follows"
        ):
            create_app([f"{name}=echo:"])
    create_app([f"{word}s/{word}-1=echo:", *([] if word in HIDDEN else [f"{word}=echo:"])])


@pytest.mark.parametrize("name", HIDDEN)
def test_a_name_that_a_path_of_the_servers_own_hides_is_refused_at_the_start(name: str, tmp_path: Path) -> None:
    save(tmp_path / "models" / name)
    for target in (f"{name}=echo:", f"{tmp_path}/models", f"{tmp_path}/models/{name}"):
        with pytest.raises(
            aiaas.AddressError, match=rf"'{name}' can't be .*: /v2/models/{name} is .* rename its folder"
        ):
            create_app([target])


def test_each_name_that_a_path_of_the_servers_own_hides_is_known(tmp_path: Path) -> None:
    """Of every path without a model in it: whether it could be that of a model, too."""
    app = create_app(["m=echo:"], management=True, jobs=tmp_path, metrics=True)
    routes = [route for route in app._router.routes if isinstance(route, Route)]
    paths = [re.sub(r"\{[^}]*\}", "x", route.path) for route in routes if "model" not in route.param_convertors]
    named = [route.path_regex for route in routes if "model" in route.param_convertors]
    hidden = {match["model"] for path in paths for regex in named if (match := regex.match(path))}
    assert len(paths) > 20
    assert hidden == {*HIDDEN}


def test_a_client_that_trains_it_calls_it_by_its_whole_name(client: Client) -> None:
    """What the protocol's own paths call org%2Fone is org/one to OpenAI's, which stand beside them."""
    for name in NAMES:
        with aiaas.load(f"{client.url}/v2/models/{name}") as model:
            backend: Any = model._engine.backend
            assert backend.endpoint().model == "org/one"
