"""The protocol's endpoints over real connections, with odd requests and with our own client."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.wire import oip

X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}
S = {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["a"]}
INFER = "/v2/models/one/infer"


def ask(**members: Any) -> dict[str, Any]:
    return {"inputs": [X], **members}


# ---------------------------------------------------------------- what there is
def test_the_server_says_what_it_is_and_can(echo: Any) -> None:
    answer = echo("GET", "/v2")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.document["name"] == "aiaas"
    assert "binary_tensor_data" in answer.document["extensions"]


@pytest.mark.parametrize(("path", "document"), [("live", {"live": True}), ("ready", {"ready": True})])
def test_health_is_told_in_json_and_by_the_status(echo: Any, path: str, document: dict[str, bool]) -> None:
    answer = echo("GET", f"/v2/health/{path}")
    assert (answer.status, answer.document) == (200, document)
    head = echo("HEAD", f"/v2/health/{path}")
    assert (head.status, head.body) == (200, b"")


def test_the_models_are_listed(echo: Any) -> None:
    assert echo("GET", "/v2/models").document == {"models": ["any", "pair", "one"]}


@pytest.mark.parametrize("path", ["/v2/models/one", "/v2/models/%6Fne", "/v2/models/one/versions/1"])
def test_metadata_is_the_signature(echo: Any, path: str) -> None:
    spec = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    expected = {"name": "one", "versions": ["1"], "platform": "echo", "inputs": spec, "outputs": spec}
    assert echo("GET", path).document == expected


@pytest.mark.parametrize("path", ["/v2/models/one/ready", "/v2/models/one/versions/1/ready"])
def test_a_model_says_that_it_is_ready(echo: Any, path: str) -> None:
    assert echo("GET", path).document == {"name": "one", "ready": True}


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"ready": true}', b'{"ready": false}', b'{"ready": null}'])
def test_the_index_lists_each_version(echo: Any, body: bytes | None) -> None:
    answer = echo("POST", "/v2/repository/index", body)
    assert answer.status == 200
    assert {"name": "one", "version": "1", "state": "READY"} in answer.document


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": "yes"}', b"\xff"])
def test_an_index_request_that_makes_no_sense_is_refused(echo: Any, body: bytes) -> None:
    answer = echo("POST", "/v2/repository/index", body)
    assert answer.status == 400
    assert answer.error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/one/versions/2", 404),
        ("GET", "/v2/models/one/versions/2/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/one/versions/2/infer", 404),
        ("GET", "/v2/models/one%2fready", 200),
        ("GET", "/v2/models/..%2f..%2fetc", 404),
        ("GET", "/v2/models/%00%1b%0a", 404),
        ("POST", "/v2/models/one/load", 404),
        ("POST", "/v2/repository/models/one/load", 403),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/models/one", 405),
        ("GET", "/v2/models/one/infer", 405),
        ("DELETE", "/v2", 405),
        ("OPTIONS", "/v2/models/one/infer", 405),
        ("TRACE", "/v2", 405),
    ],
)
def test_what_isnt_there_has_the_one_shape_of_errors(echo: Any, method: str, path: str, status: int) -> None:
    answer = echo(method, path)
    assert answer.status == status
    if status != 200:
        assert answer.error
    assert echo("GET", "/v2").status == 200, "the connection lives on"


# ---------------------------------------------------------------- infer, as JSON
@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/json"}, {"Content-Type": "application/x-www-form-urlencoded"}],
)
def test_json_is_taken_under_any_content_type(echo: Any, headers: dict[str, str]) -> None:
    answer = echo("POST", INFER, ask(), headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.document == {"model_name": "one", "model_version": "1", "outputs": [X]}


@pytest.mark.parametrize("given", ["7", "", "ü"])
def test_the_requests_id_comes_back(echo: Any, given: str) -> None:
    assert echo("POST", INFER, ask(id=given)).document["id"] == given


@pytest.mark.parametrize(
    "members",
    [
        {"id": None, "parameters": None, "outputs": None},
        {"outputs": []},
        {"unknown": 1, "parameters": {"custom": "x", "priority": 1, "sequence_id": 3}},
        {"outputs": [{"name": "x", "parameters": None}]},
        {"outputs": [{"name": "x", "parameters": {"classification": 0}}]},
        {"parameters": {"timeout": 0}},
        {"parameters": {"timeout": 5_000_000}},
    ],
)
def test_what_other_clients_add_is_taken(echo: Any, members: dict[str, Any]) -> None:
    assert echo("POST", INFER, ask(**members)).document["outputs"] == [X]


def test_nested_data_is_taken(echo: Any) -> None:
    nested = {**X, "data": [[1.0, 2.0, 3.0]]}
    assert echo("POST", INFER, {"inputs": [nested]}).document["outputs"] == [X]


def test_an_output_of_a_model_that_announces_none_is_the_callers_mistake(echo: Any) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    answer = echo("POST", "/v2/models/any/infer", {"inputs": [x], "outputs": [{"name": "y"}]})
    assert answer.status == 400
    assert "'y'" in answer.error


def test_only_the_outputs_that_were_asked_for_come(echo: Any) -> None:
    asked = {"inputs": [X, S], "outputs": [{"name": "s"}]}
    assert echo("POST", "/v2/models/pair/infer", asked).document["outputs"] == [S]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "object"),
        (b"{}", "inputs"),
        ({"inputs": [X, X]}, "twice"),
        ({"inputs": []}, "x"),
        ({"inputs": [{**X, "name": "y"}]}, "y"),
        ({"inputs": [{**X, "shape": [1, 4]}]}, "3 elements"),
        ({"inputs": [{**X, "shape": [2**40, 3]}]}, "elements"),
        ({"inputs": [{**X, "shape": [3], "data": [1, 2, 3]}]}, "shape"),
        ({"inputs": [{**X, "shape": [-1, 3]}]}, "sizes"),
        ({"inputs": [{**X, "datatype": "INT32", "data": [1, 2, 3]}]}, "FP32"),
        ({"inputs": [{**X, "datatype": "STRING"}]}, "datatype"),
        ({"inputs": [{**X, "data": ["a", "b", "c"]}]}, "numbers"),
        ({"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 12}}]}, "both"),
        (ask(id=7), "id"),
        (ask(outputs=[{"name": "y"}]), "y"),
        (ask(outputs=[{"name": "x", "parameters": {"classification": -2}}]), "classification"),
        (ask(outputs=[{"name": "x", "parameters": {"shared_memory_region": "r"}}]), "shared memory"),
        (ask(parameters={"triton_x": 1}), "reserved"),
        (ask(parameters={"timeout": "soon"}), "timeout"),
        (ask(parameters={"timeout": -1}), "timeout"),
        (ask(parameters={"timeout": True}), "timeout"),
        (ask(parameters={"binary_data_output": 1}), "binary_data_output"),
        (b'{"inputs":' + b"[" * 200_000 + b"]" * 200_000 + b"}", ""),
    ],
)
def test_a_clients_mistake_is_400_and_says_which(echo: Any, body: Any, says: str) -> None:
    answer = echo("POST", INFER, body)
    assert answer.status == 400
    assert says in answer.error
    assert "/" not in answer.error
    assert echo("POST", INFER, ask()).status == 200, "the connection lives on"


# ---------------------------------------------------------------- infer, as bytes
def encoded(
    tensors: dict[str, Tensor], outputs: list[str] | None = None, *, binary: bool = True
) -> tuple[bytes, dict[str, str]]:
    message = oip.encode_request(tensors, outputs=outputs, binary=binary, id="7", json_fp16=True)
    return b"".join(message.body), dict(message.headers)


SAMPLES: dict[str, Any] = {
    "BOOL": [True, False, True],
    "BF16": np.array([0x3F80, 0x7FC0, 1], "<u2"),
    "BYTES": np.array([b"\xff\x00", b"", b"a\x00"], object),
}


def sample(datatype: str) -> Tensor:
    kind = DATATYPES[datatype]
    return Tensor(datatype, np.array(SAMPLES.get(datatype, [0, 1, 100]), kind.dtype))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_bytes_come_back_as_they_went(echo: Any, datatype: str) -> None:
    tensor = sample(datatype)
    body, headers = encoded({"x": tensor})
    answer = echo("POST", "/v2/models/any/infer", body, headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    back = oip.decode_response(answer.headers, answer.body, id="7").outputs["x"]
    assert back.datatype == datatype
    assert back.array.tobytes() == tensor.array.tobytes() or back.array.tolist() == tensor.array.tolist()


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (1, 0, 3)])
@pytest.mark.parametrize("binary", [True, False])
def test_empty_tensors_keep_their_shape(echo: Any, shape: tuple[int, ...], binary: bool) -> None:
    body, headers = encoded({"x": Tensor("FP32", np.empty(shape, np.float32))}, binary=binary)
    answer = echo("POST", "/v2/models/any/infer", body, headers)
    assert oip.decode_response(answer.headers, answer.body).outputs["x"].shape == shape


@pytest.mark.parametrize("flag", [None, True, False])
@pytest.mark.parametrize("own", [None, True, False])
def test_an_outputs_own_flag_goes_before_the_requests(echo: Any, flag: bool | None, own: bool | None) -> None:
    outputs: list[dict[str, Any]] = [{"name": "x"}, {"name": "h"}]
    if own is not None:
        outputs[0]["parameters"] = {"binary_data": own}
    asked: dict[str, Any] = {"inputs": [X, {**X, "name": "h", "datatype": "FP16"}], "outputs": outputs}
    if flag is not None:
        asked["parameters"] = {"binary_data_output": flag}
    answer = echo("POST", "/v2/models/any/infer", asked)
    size = int(answer.headers.get(oip.HEADER_LENGTH, len(answer.body)))
    entries = {entry["name"]: entry for entry in json.loads(answer.body[:size])["outputs"]}
    assert ("data" not in entries["x"]) is bool(flag if own is None else own)
    if flag:
        assert "data" not in entries["h"]


def test_json_and_bytes_may_be_mixed(echo: Any) -> None:
    second = {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    head = json.dumps({"inputs": [X, second]}).encode()
    headers = {oip.HEADER_LENGTH: str(len(head))}
    answer = echo("POST", "/v2/models/any/infer", head + struct.pack("<f", 2.5), headers)
    assert [entry["data"] for entry in answer.document["outputs"]] == [[1, 2, 3], [2.5]]


def test_a_raw_request_is_the_one_inputs_bytes(echo: Any) -> None:
    raw = np.arange(6, dtype=np.float32)
    answer = echo("POST", INFER, raw.tobytes(), {oip.HEADER_LENGTH: "0"})
    assert oip.decode_response(answer.headers, answer.body).outputs["x"].array.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1e3", "+2", ""])
def test_a_header_length_that_is_none_is_refused(echo: Any, length: str) -> None:
    answer = echo("POST", INFER, ask(), {oip.HEADER_LENGTH: length})
    assert answer.status == 400
    assert oip.HEADER_LENGTH in answer.error


@pytest.mark.parametrize("size", [8, 13, 16, -1, 2**62, "12", True])
def test_binary_sizes_are_checked(echo: Any, size: Any) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [entry]}).encode()
    answer = echo("POST", INFER, head + bytes(12), {oip.HEADER_LENGTH: str(len(head))})
    assert answer.status == 400
    assert answer.error


def test_strings_that_json_cant_carry_are_refused_with_a_way_out(echo: Any) -> None:
    body, headers = encoded({"x": Tensor("BYTES", np.array([b"\xff"], object))}, binary=True)
    size = int(headers[oip.HEADER_LENGTH])
    document = {**json.loads(body[:size]), "parameters": {"binary_data_output": False}}
    head = json.dumps(document).encode()
    answer = echo("POST", "/v2/models/any/infer", head + body[size:], {oip.HEADER_LENGTH: str(len(head))})
    assert answer.status == 400
    assert "binary" in answer.error


# ---------------------------------------------------------------- packed
def packed(data: bytes, encoding: str) -> bytes:
    if encoding == "bare":
        made = zlib.compressobj(wbits=-15)
        return made.compress(data) + made.flush()
    return gzip.compress(data) if "gzip" in encoding else zlib.compress(data)


@pytest.mark.parametrize(
    ("how", "name"), [("gzip", "gzip"), ("gzip", "X-GZIP"), ("deflate", "deflate"), ("bare", "deflate")]
)
def test_packed_requests_are_unpacked(echo: Any, how: str, name: str) -> None:
    body, headers = encoded({"x": Tensor("FP32", np.ones((1, 3), np.float32))})
    answer = echo("POST", INFER, packed(body, how), {**headers, "Content-Encoding": name})
    assert answer.status == 200
    assert oip.decode_response(answer.headers, answer.body).outputs["x"].array.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("gzip", gzip.compress(b"", mtime=0) * 100, 400),
        ("deflate", zlib.compress(b"{}") + b"x", 400),
    ],
)
def test_what_cant_be_unpacked_is_refused(echo: Any, encoding: str, body: bytes, status: int) -> None:
    answer = echo("POST", INFER, body, {"Content-Encoding": encoding})
    assert answer.status == status
    assert answer.error


# ---------------------------------------------------------------- our own client
def test_our_client_sees_the_model_as_it_is_here(echo: Any, load: Any) -> None:
    with load(f"{echo.url}/v2/models/pair") as model:
        info = model.info()
        assert (info.name, info.version, info.rows_free) == ("pair", "1", True)
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        answer = model.predict({"x": x, "s": [b"\xff\x00", b""]})
        assert answer["x"].tolist() == x.tolist()
        assert answer["s"].tolist() == [b"\xff\x00", b""]
        assert answer.version == "1"
        assert list(model.predict({"x": x, "s": ["a", "b"]}, outputs=["s"])) == ["s"]
        assert model.ready()


def test_a_large_tensor_goes_through(echo: Any, load: Any) -> None:
    x = np.random.default_rng(0).random((500_000, 3), dtype=np.float32)
    with load(f"{echo.url}/v2/models/one") as model:
        assert np.array_equal(model.predict(x)["x"], x)


def test_a_model_that_isnt_there_is_told_to_our_client(echo: Any, load: Any) -> None:
    model = load(f"{echo.url}/v2/models/none")
    with pytest.raises(aiaas.ModelNotFoundError, match="none"):
        model.info()
