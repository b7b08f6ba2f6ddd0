"""`/invocations` in all its forms, with our own client of it, and one question through each encoding."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.wire import oip
from tests.server.conftest import Client

PATH = "/invocations"
ROW = [1.0, 2.0, 3.0]
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
NPY = {"Content-Type": "application/x-npy"}
BINARY = "application/vnd.sagemaker-triton.binary+json"
CHAT = [{"role": "user", "content": "hello big world"}]


@pytest.fixture(scope="module")
def one() -> Iterator[Client]:
    with serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as url:
        client = Client(url)
        yield client
        client.connection.close()


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def error_of(answer: Any) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.document) == ["error_code", "message"]
    return answer.document


# ---------------------------------------------------------------- tensors
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"instances": [ROW]}, {}),
        ({"instances": [{"x": ROW}]}, JSON),
        ({"inputs": [ROW]}, {"Content-Type": "application/json; charset=utf-8"}),
        ({"inputs": {"x": [ROW]}}, JSON),
        ({"inputs": [ROW], "params": {"ignored": 1}}, JSON),
        ({"dataframe_split": {"columns": ["a", "b", "c"], "index": [0], "data": [ROW]}}, JSON),
        ({"dataframe_split": {"columns": ["x"], "data": [[ROW]]}}, JSON),
        ({"dataframe_split": {"data": [ROW]}}, JSON),
        ({"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}, JSON),
        (b"1,2,3\n", CSV),
        (b"a,b,c\n1,2,3\n", CSV),
        (b"1,2,3\n", {"Content-Type": "text/csv; header=absent"}),
        (b"7,7,7\n1,2,3\n", {"Content-Type": 'TEXT/CSV; charset=utf-8; header="present"'}),
        (saved(np.array([ROW], np.float32)), NPY),
        (saved(np.array([ROW], ">f4")), NPY),
    ],
)
def test_every_form_is_the_same_question(one: Any, body: Any, headers: dict[str, str]) -> None:
    answer = one("POST", PATH, body, headers)
    assert (answer.status, answer.document) == (200, {"predictions": [ROW]})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("application/x-npy", "application/x-npy"),
        ("text/html, text/csv;q=0.9", "text/csv"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, text/csv", "application/json"),
    ],
)
def test_the_answers_form_is_chosen_by_accept(one: Any, accept: str, kind: str) -> None:
    answer = one("POST", PATH, {"instances": [ROW]}, {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    if kind == "text/csv":
        assert answer.body == b"1.0,2.0,3.0\n"
    elif kind == "application/x-npy":
        assert np.array_equal(np.load(io.BytesIO(answer.body)), np.array([ROW], np.float32))


def test_several_outputs_are_an_object_a_row_and_no_table(serving: Any) -> None:
    client = serving("pair=echo:?x=FP32[-1,3]&s=BYTES[-1]")
    row = {"x": ROW, "s": "a"}
    assert client("POST", PATH, {"instances": [row]}).document == {"predictions": [row]}
    assert client("POST", PATH, {"dataframe_split": {"columns": ["s", "x"], "data": [["a", ROW]]}}).document == {
        "predictions": [row]
    }
    for accept in ("text/csv", "application/x-npy"):
        refused = client("POST", PATH, {"instances": [row]}, {"Accept": accept})
        assert refused.status == 406
        assert accept in error_of(refused)["message"]


def test_requests_of_the_open_inference_protocol(one: Any) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": ROW}
    answer = one("POST", PATH, {"inputs": [tensor], "id": "7"}, JSON)
    assert answer.document == {"model_name": "one", "model_version": "1", "id": "7", "outputs": [tensor]}


def test_binary_tensors_as_sagemaker_lets_them_through(one: Any) -> None:
    x = np.array([ROW], np.float32)
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
        "parameters": {"binary_data_output": True},
    }
    start = json.dumps(head).encode()
    answer = one("POST", PATH, start + x.tobytes(), {"Content-Type": f"{BINARY};json-header-size={len(start)}"})
    assert answer.status == 200
    kind, size = answer.headers["content-type"].split(";json-header-size=")
    assert kind == BINARY
    assert "inference-header-content-length" not in answer.headers  # SageMaker would drop it
    found = oip.decode_response({oip.HEADER_LENGTH: size}, answer.body)
    assert found.outputs["x"].array.tolist() == [ROW]
    for size in ("", ";json-header-size=x", ";json-header-size=999999"):
        assert one("POST", PATH, start + x.tobytes(), {"Content-Type": BINARY + size}).status == 400


# ---------------------------------------------------------------- language
def test_language_in_the_forms_of_openai(one: Any) -> None:
    chat = one("POST", PATH, {"messages": CHAT, "max_tokens": 2}).document
    assert chat["choices"][0]["message"]["content"] == "hello big"
    assert chat["model"] == "one"
    other = one("POST", PATH, {"messages": CHAT, "model": "tgi"}).document
    assert other["choices"][0]["message"]["content"] == "hello big world"
    text = one("POST", PATH, {"prompt": ["a b", "c"]}).document
    assert [choice["text"] for choice in text["choices"]] == ["a b", "c"]
    assert len(one("POST", PATH, {"input": ["a", "b"]}).document["data"]) == 2
    stream = one("POST", PATH, {"messages": CHAT, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.body.endswith(b"data: [DONE]\n\n")


def test_language_in_the_form_of_tgi(one: Any) -> None:
    asked = {"inputs": "hello big world", "parameters": {"max_new_tokens": 2, "do_sample": False}}
    assert one("POST", PATH, asked).document == [{"generated_text": "hello big"}]
    asked["parameters"]["return_full_text"] = True  # type: ignore[index]
    assert one("POST", PATH, asked).document == [{"generated_text": "hello big worldhello big"}]
    for parameters, says in (({"details": True}, "details"), ({"grammar": {}, "top_n_tokens": 2}, "top_n_tokens")):
        refused = one("POST", PATH, {"inputs": "a", "parameters": parameters})
        assert (refused.status, says in error_of(refused)["message"]) == (400, True)
    refused = one("POST", PATH, {"inputs": "a", "stream": True})
    assert (refused.status, "stream" in error_of(refused)["message"]) == (400, True)


def test_what_fails_is_told_in_mlflows_words(serving: Any, talker: str) -> None:
    client = serving(f"talker={talker}")
    failed = client("POST", PATH, {"prompt": "fail"})
    assert (failed.status, error_of(failed)["error_code"]) == (500, "INTERNAL_ERROR")
    busy = client("POST", PATH, {"inputs": "busy"})
    assert (busy.status, busy.headers["retry-after"]) == (429, "3")
    assert error_of(busy)["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    stream = client("POST", PATH, {"prompt": "one fail", "stream": True})
    assert json.loads(stream.body.split(b"\n\n")[-2][6:])["error_code"] == "INTERNAL_ERROR"


# ---------------------------------------------------------------- which model
def test_one_of_several_models_is_named_by_a_header(serving: Any) -> None:
    client = serving("a=echo:?x=FP32[-1,3]", "b=echo:?y=FP32[-1,3]")
    several = client("POST", PATH, {"instances": [ROW]})
    assert (several.status, "x-amzn-sagemaker-target-model" in error_of(several)["message"]) == (400, True)
    for name in ("b", "b.tar.gz"):
        headers = {"X-Amzn-SageMaker-Target-Model": name}
        assert client("POST", PATH, {"instances": [{"y": ROW}]}, headers).document == {"predictions": [ROW]}
    unknown = client("POST", PATH, {"instances": [ROW]}, {"X-Amzn-SageMaker-Target-Model": "../../etc"})
    assert (unknown.status, error_of(unknown)["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


# ---------------------------------------------------------------- saying no
@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        ({}, {}, 400, "instances, inputs"),
        ({"instances": [ROW], "inputs": [ROW]}, {}, 400, "instances and inputs"),
        ({"dataframe_split": {"columns": ["x", "x"], "data": [[1, 2]]}}, {}, 400, "one name"),
        ({"dataframe_split": {"columns": ["a"], "data": [ROW]}}, {}, 400, "row 0"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, {}, 400, "a"),
        ({"dataframe_split": [ROW]}, {}, 400, "dataframe_split"),
        ({"dataframe_records": []}, {}, 400, "dataframe_records"),
        ({"instances": [[1, 2]]}, {}, 400, "shape"),
        (b"{", JSON, 400, "JSON"),
        (b"[1]", JSON, 400, "object"),
        (b"1,2\n", CSV, 400, "x"),
        (b"PK", NPY, 400, "npy"),
        (saved(np.array([ROW])), NPY, 400, "float64"),
        (b"PAR1", {"Content-Type": "application/vnd.apache.parquet"}, 400, "Parquet"),
        (b"PK", {"Content-Type": "application/zip"}, 415, "x-parquet"),
        ({"instances": [ROW]}, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "text/csv"),
        ({"instances": [ROW]}, {"Accept": "image/png"}, 406, "Accept"),
    ],
)
def test_errors_have_mlflows_shape(one: Any, body: Any, headers: dict[str, str], status: int, says: str) -> None:
    answer = one("POST", PATH, body, headers)
    assert answer.status == status
    assert says in error_of(answer)["message"]
    assert one("GET", "/ping").status == 200


def test_only_a_post_is_taken(one: Any) -> None:
    answer = one("GET", PATH)
    assert (answer.status, error_of(answer)["error_code"]) == (405, "BAD_REQUEST")


# ---------------------------------------------------------------- one question, each encoding (R49)
VALUES = {
    "INT32": [[0, -(2**31), 2**31 - 1], [2**31], [1.5], ["a"]],
    "INT64": [[0, -(2**63), 2**63 - 1], [2**63], [1.5], [True]],
    "BOOL": [[True, False], ["maybe"], [2]],
    "FP32": [[1.5, -2, 16777217], [1e39], ["a"], [None]],
}


@pytest.mark.parametrize("datatype", VALUES)
def test_each_encoding_gives_the_same_answer_or_refuses(serving: Any, datatype: str) -> None:
    client = serving(f"m=echo:?v={datatype}[-1]")
    for values in VALUES[datatype]:
        answers = {name: _outcome(client(*asked)) for name, asked in _encodings(datatype, values).items()}
        assert len({json.dumps(outcome) for outcome in answers.values()}) == 1, (values, answers)


def _encodings(datatype: str, values: list[Any]) -> dict[str, Any]:
    """The same question by each encoding in which it can be asked."""
    tensor = {"name": "v", "datatype": datatype, "shape": [len(values)], "data": values}
    cells = "\n".join("" if value is None else str(value).lower() for value in values)
    found = {
        "v2": ("POST", "/v2/models/m/infer", {"inputs": [tensor]}, JSON),
        "v1 instances": ("POST", "/v1/models/m:predict", {"instances": values}, JSON),
        "v1 named": ("POST", "/v1/models/m:predict", {"instances": [{"v": value} for value in values]}, JSON),
        "v1 inputs": ("POST", "/v1/models/m:predict", {"inputs": {"v": values}}, JSON),
        "split": ("POST", PATH, {"dataframe_split": {"columns": ["v"], "data": [[value] for value in values]}}, JSON),
        "records": ("POST", PATH, {"dataframe_records": [{"v": value} for value in values]}, JSON),
        "sagemaker v2": ("POST", PATH, {"inputs": [tensor]}, JSON),
    }
    if cells:  # a table of one empty line has none
        found["csv"] = ("POST", PATH, f"v\n{cells}\n".encode(), CSV)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, {"INT32": "i4", "INT64": "i8", "BOOL": "?", "FP32": "f4"}[datatype])
    except (OverflowError, ValueError, TypeError):
        return found
    if array.tolist() == values and {bool} & set(map(type, values)) <= {type(array.tolist()[0])}:
        found["npy"] = ("POST", PATH, saved(array), NPY)
    return found


def _outcome(answer: Any) -> Any:
    if answer.status != 200:
        return answer.status
    document = answer.document
    return document["predictions"] if "predictions" in document else document["outputs"][0]["data"]
