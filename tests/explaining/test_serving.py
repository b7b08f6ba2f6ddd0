"""What the server answers: KServe's form, our own, and what it refuses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.wire import explanations

from .conftest import LABELS, images, rows


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


# ---------------------------------------------------------------- KServe V1
def test_kserves_form_by_row_and_by_column(server: str, at: Any) -> None:
    x = images(2)
    wanted = aiaas.load(at("here", "digits")).explain(x, target=["3", "4"], method="saliency").array
    asked = {"parameters": {"method": "saliency", "target": ["3", 4]}}
    for form in ("instances", "inputs"):
        status, told = post(f"{server}/v1/models/digits:explain", {form: x.tolist(), **asked})
        assert status == 200
        assert np.abs(np.array(told["explanations"]) - wanted).max() < 1e-6
        assert (told["method"], told["target"], told["completeness_error"]) == ("saliency", [3, 4], None)


def test_kserves_form_without_parameters(server: str, at: Any) -> None:
    x = rows(2)
    status, told = post(f"{server}/v1/models/table/versions/1:explain", {"instances": x.tolist()})
    assert status == 200
    assert np.abs(np.array(told["explanations"]) - aiaas.load(at("here", "table")).explain(x).array).max() < 1e-6
    assert (told["method"], len(told["target"])) == ("shap", 2)
    assert told["completeness_error"] < 1e-5


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"parameters": 3}, "aren't an object"),
        ({"parameters": {"method": 3}}, "method isn't text"),
        ({"parameters": {"target": {}}}, "target is an index"),
        ({"parameters": {"target": 1.5}}, "target is an index"),
        ({"parameters": {"target": [0] * 100_000}}, "target is an index"),
        ({"parameters": {"method": "guessing"}}, "no method 'guessing'"),
        ({"parameters": {"target": 3}}, "no target 3. Its targets are 0 to 2"),
        ({"instances": [[0] * 4] * 65}, "65 rows are to be explained. At most 64"),
    ],
)
def test_what_it_refuses(server: str, more: dict[str, Any], says: str) -> None:
    body = {"instances": [[1, 2, 3, 4]], **more}
    status, told = post(f"{server}/v1/models/table:explain", body)
    assert status == 400
    assert says in told["error"]


# ---------------------------------------------------------------- our form
def test_it_is_announced(server: str) -> None:
    with urllib.request.urlopen(f"{server}/v2") as reply:
        assert explanations.EXTENSION in json.load(reply)["extensions"]


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_our_form_in_json(server: str, at: Any, path: str) -> None:
    x = rows(2)
    entry = {"name": "features", "datatype": "FP32", "shape": [2, 4], "data": x.ravel().tolist()}
    body = {"id": "one", "inputs": [entry], "parameters": {"method": "shap", "target": 1}}
    status, told = post(f"{server}/v2/models/table{path}/explain", body)
    assert status == 200
    assert (told["model_name"], told["model_version"], told["id"]) == ("table", "1", "one")
    (output,) = told["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("features", "FP32", [2, 4])
    wanted = aiaas.load(at("here", "table")).explain(x, target=1).array
    assert np.abs(np.array(output["data"]).reshape(2, 4) - wanted).max() < 1e-6
    assert told["parameters"]["target"] == [1, 1]
    assert told["parameters"]["method"] == "shap"


def test_texts_travel_as_they_are(server: str) -> None:
    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}
    url = f"{server}/v2/models/encoder/explain"
    status, told = post(url, {"inputs": [entry], "parameters": {"texts": True}})
    assert status == 200
    assert told["parameters"]["tokens"] == [list("a cat")]
    wrong = {**entry, "name": "words"}
    status, told = post(url, {"inputs": [wrong], "parameters": {"texts": True}})
    assert (status, "texts are one input" in told["error"]) == (400, True)
    status, told = post(url, {"inputs": [{**entry, "shape": [65], "data": ["a"] * 65}], "parameters": {"texts": True}})
    assert (status, "65 rows" in told["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("table/explain", b"{", 400),
        ("table/explain", {"inputs": []}, 400),
        ("table/explain", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}, 400),
        ("none/explain", {"inputs": []}, 404),
        ("table/versions/9/explain", {"inputs": []}, 404),
    ],
)
def test_requests_that_are_wrong(server: str, path: str, body: Any, status: int) -> None:
    came, told = post(f"{server}/v2/models/{path}", body)
    assert (came, list(told)) == (status, ["error"])


def test_it_is_counted_and_others_are_answered_meanwhile(server: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = aiaas.load(f"{server}/v2/models/digits", timeout=60)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(model.explain, images(48), method="occlusion")
        answers = []
        while not slow.done():
            answers.append(model.predict(images(1)).timing.total)
    assert slow.result().array.shape == (48, 1, 12, 12)
    assert len(answers) > 1, "nobody had a turn"
    with urllib.request.urlopen(f"{server}/metrics") as reply:
        told = reply.read().decode()
    assert any("explain" in line and "digits" in line for line in told.splitlines())


# ---------------------------------------------------------------- a peer that answers wrong
@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"method": "magic"}, "explained by 'magic'"),
        ({"method": "shap", "target": "x"}, "target isn't a list"),
        ({"method": "shap", "target": [-1]}, "target isn't a list"),
        ({"method": "shap", "completeness_error": "x"}, "isn't a number"),
        ({"method": "shap", "tokens": [1]}, "tokens"),
    ],
)
def test_an_answer_that_cannot_be(parameters: dict[str, Any], says: str) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    body = json.dumps({"model_name": "m", "outputs": [entry], "parameters": parameters}).encode()
    with pytest.raises(aiaas.ProtocolError, match=says):
        explanations.decode_answer({}, body, id="one")


def test_labels_come_from_the_models_metadata(server: str) -> None:
    found = aiaas.load(f"{server}/v2/models/digits").explain(images(1), method="saliency")
    assert found.labels == tuple(LABELS)
