"""KServe's V1 protocol over real connections."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

PREDICT = "/v1/models/one:predict"
ROW = [1.0, 2.0, 3.0]
ODD = {"x": ROW, "s": {"b64": "/w=="}}


@pytest.mark.parametrize(
    ("path", "body", "predictions"),
    [
        (PREDICT, {"instances": [ROW, ROW]}, [ROW, ROW]),
        (PREDICT, {"instances": [{"x": ROW}]}, [ROW]),
        (PREDICT, {"inputs": [ROW]}, [ROW]),
        (PREDICT, {"inputs": {"x": [ROW]}}, [ROW]),
        (PREDICT, {"instances": []}, []),
        (PREDICT, {"instances": [[1, None, 3]]}, [[1.0, None, 3.0]]),  # NaN, there and back
        ("/v1/models/one%3Apredict", {"instances": [ROW]}, [ROW]),
        ("/v1/models/%6Fne:predict", {"instances": [ROW]}, [ROW]),
        ("/v1/models/one/versions/1:predict", {"instances": [ROW]}, [ROW]),
        ("/v1/models/pair:predict", {"instances": [{"x": ROW, "s": "a"}]}, [{"x": ROW, "s": "a"}]),
        ("/v1/models/pair:predict", {"inputs": {"x": [ROW], "s": ["a"]}}, {"x": [ROW], "s": ["a"]}),
        ("/v1/models/pair:predict", {"instances": [ODD]}, [ODD]),
        ("/v1/models/any:predict", {"instances": [1, 2]}, [1, 2]),
        ("/v1/models/any:predict", {"instances": [{"a": 1, "b": "u"}]}, [{"a": 1, "b": "u"}]),
    ],
)
def test_predictions(echo: Any, path: str, body: Any, predictions: Any) -> None:
    answer = echo("POST", path, body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.document == {"predictions": predictions}


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "application/cloudevents+json"}, {"Content-Type": "text/plain"}]
)
def test_json_is_taken_under_any_content_type(echo: Any, headers: dict[str, str]) -> None:
    assert echo("POST", PREDICT, {"instances": [ROW]}, headers).document == {"predictions": [ROW]}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (PREDICT, {"instances": [[1, 2]]}, 400, "shape"),
        (PREDICT, {"instances": [ROW, [1, 2]]}, 400, "lengths"),
        (PREDICT, {"instances": [["a", "b", "c"]]}, 400, "numbers"),
        (PREDICT, {"instances": [{"y": ROW}]}, 400, "y"),
        (PREDICT, {"instances": ROW}, 400, "shape"),
        (PREDICT, {"instances": [ROW], "inputs": [ROW]}, 400, "both"),
        (PREDICT, {"rows": [ROW]}, 400, "neither"),
        (PREDICT, b"[1]", 400, "object"),
        (PREDICT, b"{", 400, "JSON"),
        (PREDICT, b"", 400, "JSON"),
        (PREDICT, b'{"instances":' + b"[" * 100_000, 400, "JSON"),
        ("/v1/models/none:predict", {"instances": [ROW]}, 404, "none"),
        ("/v1/models/one/versions/9:predict", {"instances": [ROW]}, 404, "9"),
        ("/v1/models/any:explain", {"instances": [ROW]}, 400, "explain isn't available"),
        ("/v1/models/pair:predict", {"instances": [ROW]}, 400, "x, s"),
        ("/v1/models/pair:predict", {"instances": [{"x": ROW, "s": {"b64": "?"}}]}, 400, "base64"),
    ],
)  # fmt: skip
def test_errors_are_text_under_error(echo: Any, path: str, body: Any, status: int, says: str) -> None:
    answer = echo("POST", path, body)
    assert answer.status == status
    assert says in answer.error
    assert echo("GET", "/livez").status == 200, "the connection lives on"


def test_the_other_paths_of_v1_speak_as_openai_does(echo: Any) -> None:
    assert echo("GET", "/v1/models").document["models"] == ["any", "pair", "one"]
    found = echo("GET", "/v1/models/one").document
    assert (found["name"], found["ready"], found["object"]) == ("one", True, "model")
    assert set(echo("GET", "/v1/models/none").document["error"]) == {"message", "type", "param", "code"}


def test_a_long_answer_is_packed_for_who_asks(echo: Any) -> None:
    import gzip

    rows = np.arange(3000.0).reshape(-1, 3).tolist()
    answer = echo("POST", PREDICT, {"instances": rows}, {"Accept-Encoding": "gzip, deflate, br"})
    assert answer.headers["content-encoding"] == "gzip"
    assert b'{"predictions":[[0.0,1.0,2.0]' in gzip.decompress(answer.body)


def test_a_large_request_keeps_its_numbers(echo: Any) -> None:
    rows = np.random.default_rng(0).random((20_000, 3), dtype=np.float32)
    answer = echo("POST", PREDICT, {"instances": rows.tolist()})
    assert np.array_equal(np.array(answer.document["predictions"], np.float32), rows)


def test_bytes_of_a_megabyte(echo: Any) -> None:
    text = base64.b64encode(bytes(range(256)) * 4096).decode()
    answer = echo("POST", "/v1/models/pair:predict", {"instances": [{"x": ROW, "s": {"b64": text}}]})
    assert answer.document["predictions"][0]["s"] == {"b64": text}
