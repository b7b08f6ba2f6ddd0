"""Triton's extensions: packing, classes, configuration, repository; and binary flags in all combinations."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server.packing import coding
from aiaas_sdk.wire import oip

INFER = "/v2/models/one/infer"
MANY = np.arange(3000, dtype=np.float32).reshape(-1, 3)
X = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1.0, 3.0, 2.0, 6.0, 5.0, 4.0]}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def asked(**members: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(MANY.shape), "data": MANY.ravel().tolist()}
    return {"inputs": [tensor], **members}


# ---------------------------------------------------------------- packing
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("deflate, gzip;q=0.5", "deflate"),
        ("br", None),
        ("*", None),
        ("gzip;q=0, *", None),
        ("identity;q=0, *", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate;q=0.001", "deflate"),
        ("gzip;q=0.5, identity;q=0.9", None),
        ("gzip;q=0.5;x=1, deflate", "deflate"),
        ("gzip ; q=1.000", "gzip"),
        (",,;q=1,\x00", None),
        ("*;q=0", None),
        ("gzip;q=0, *;q=0", None),
    ],
)
def test_a_coding_is_what_was_asked_for(accept: str | None, expected: str | None) -> None:
    assert coding(accept) == expected


@pytest.mark.parametrize("way", UNPACK)
@pytest.mark.parametrize("binary", [True, False])
def test_answers_are_packed_and_the_header_counts_what_was_before(echo: Any, way: str, binary: bool) -> None:
    wish = {"parameters": {"binary_data_output": True}} if binary else {}
    answer = echo("POST", INFER, asked(**wish), {"Accept-Encoding": way})
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (way, "accept-encoding")
    assert int(answer.headers["content-length"]) == len(answer.body)
    found = oip.decode_response(answer.headers, UNPACK[way](answer.body))
    assert np.array_equal(found.outputs["x"].array, MANY)
    plain = echo("POST", INFER, asked(**wish))
    assert plain.headers.get("inference-header-content-length") == answer.headers.get("inference-header-content-length")
    assert plain.body == UNPACK[way](answer.body)


def test_a_short_answer_and_one_that_nobody_asked_for_arent_packed(echo: Any) -> None:
    for accept in ({"Accept-Encoding": "identity"}, {"Accept-Encoding": "br"}, {"Accept-Encoding": "*"}):
        assert "content-encoding" not in echo("POST", INFER, asked(), accept).headers
    assert "content-encoding" not in echo("POST", INFER, {"inputs": [X]}, {"Accept-Encoding": "gzip"}).headers


@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_packed_both_ways(echo: Any, there: str | None, back: str | None) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, None: bytes}
    raw = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1000, 3], "parameters": {"binary_data_size": 12000}}]}
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(raw))}
    headers |= {} if there is None else {"Content-Encoding": there}
    headers |= {} if back is None else {"Accept-Encoding": back}
    answer = echo("POST", INFER, pack[there](raw + MANY.tobytes()), headers)
    body = answer.body if back is None else UNPACK[back](answer.body)
    assert np.array_equal(oip.decode_response(answer.headers, body).outputs["x"].array, MANY)


# ---------------------------------------------------------------- binary flags (R43)
@pytest.mark.parametrize("whole", [None, True, False])
@pytest.mark.parametrize("own", [None, True, False])
def test_an_outputs_own_flag_wins_where_it_is_set(echo: Any, whole: bool | None, own: bool | None) -> None:
    half = np.array([[0.5, 65504.0]], np.float16)
    inputs = [
        {"name": "h", "datatype": "FP16", "shape": [1, 2], "parameters": {"binary_data_size": half.nbytes}},
        {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]},
    ]
    flag = {} if own is None else {"parameters": {"binary_data": own}}
    body: dict[str, Any] = {"inputs": inputs, "outputs": [{"name": name, **flag} for name in ("h", "x")]}
    if whole is not None:
        body["parameters"] = {"binary_data_output": whole}
    head = json.dumps(body).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = echo("POST", "/v2/models/any/infer", head + half.tobytes(), headers)
    assert answer.status == 200
    size = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    entries = {entry["name"]: entry for entry in json.loads(answer.body[:size])["outputs"]}
    wish = whole if own is None else own
    assert ("data" in entries["x"]) is not wish
    assert ("data" in entries["h"]) is (wish is False)  # FP16 goes as bytes unless numbers are wanted expressly
    found = oip.decode_response(answer.headers, answer.body)
    assert found.outputs["h"].array.tolist() == half.tolist()
    assert found.outputs["x"].array.tolist() == [1.5]


# ---------------------------------------------------------------- classes
@pytest.mark.parametrize(
    ("count", "data"),
    [(1, ["3.0:1", "6.0:0"]), (2, ["3.0:1", "2.0:2", "6.0:0", "5.0:1"]), (10**9, None)],
)
def test_the_best_classes_in_place_of_the_numbers(echo: Any, count: int, data: list[str] | None) -> None:
    body = {"inputs": [X], "outputs": [{"name": "x", "parameters": {"classification": count}}]}
    [output] = echo("POST", INFER, body).document["outputs"]
    assert output["datatype"] == "BYTES"
    assert output["shape"] == [2, min(count, 3)]
    assert len(output["data"]) == 2 * min(count, 3)
    assert data is None or output["data"] == data


@pytest.mark.slow  # torch is imported
def test_classes_have_the_labels_of_the_model(serving: Any, tmp_path: Any) -> None:
    import torch

    import aiaas_sdk as aiaas

    example = np.array([[0.0, 2.0, 1.0]], np.float32)
    module = torch.nn.Linear(3, 3, bias=False)
    module.weight.data = torch.eye(3)
    aiaas.save(module, tmp_path / "same", example=example, labels=["cat", "dog", "owl"])
    client = serving(str(tmp_path))
    info = client("GET", "/v2/models/same").document
    tensor = {"name": info["inputs"][0]["name"], "datatype": "FP32", "shape": [1, 3], "data": [0.0, 2.0, 1.0]}
    wish = [{"name": info["outputs"][0]["name"], "parameters": {"classification": 2}}]
    answer = client("POST", "/v2/models/same/infer", {"inputs": [tensor], "outputs": wish})
    assert answer.document["outputs"][0]["data"] == ["2.0:1:dog", "1.0:2:owl"]


@pytest.mark.parametrize("count", [-1, 1.5, "2", True])
def test_a_number_of_classes_that_is_none_is_refused(echo: Any, count: Any) -> None:
    body = {"inputs": [X], "outputs": [{"name": "x", "parameters": {"classification": count}}]}
    answer = echo("POST", INFER, body)
    assert (answer.status, "classification" in answer.error) == (400, True)


def test_texts_have_no_classes(echo: Any) -> None:
    tensor = {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    body = {"inputs": [tensor], "outputs": [{"name": "s", "parameters": {"classification": 1}}]}
    answer = echo("POST", "/v2/models/any/infer", body)
    assert (answer.status, "BYTES" in answer.error) == (400, True)


# ---------------------------------------------------------------- what a model takes
def test_the_configuration_has_no_axis_of_rows(echo: Any) -> None:
    for path in ("/v2/models/pair/config", "/v2/models/pair/versions/1/config"):
        found = echo("GET", path).document
        assert found["name"] == "pair"
        assert found["max_batch_size"] == 64
        assert found["input"] == [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [3]},
            {"name": "s", "data_type": "TYPE_STRING", "dims": []},
        ]
    assert echo("HEAD", "/v2/models/pair/config").status == 200
    assert echo("GET", "/v2/models/none/config").status == 404
    assert echo("GET", "/v2/models/pair/versions/9/config").status == 404


def test_a_model_that_is_called_whole_has_all_its_axes(serving: Any) -> None:
    found = serving("whole=echo:?x=FP32[2,3]")("GET", "/v2/models/whole/config").document
    assert (found["max_batch_size"], found["input"][0]["dims"]) == (0, [2, 3])


# ---------------------------------------------------------------- the repository
def test_without_management_nothing_is_loaded_or_unloaded(echo: Any) -> None:
    for verb in ("load", "unload"):
        for name in ("one", "none"):
            answer = echo("POST", f"/v2/repository/models/{name}/{verb}")
            assert (answer.status, "management" in answer.error) == (403, True)
        assert echo("POST", f"/v2/repository/models/..%2f..%2fetc/{verb}").status == 404


def test_with_management_models_come_and_go(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", "two=echo:", management=True)

    def state(name: str) -> str:
        rows = client("POST", "/v2/repository/index").document
        return next(row["state"] for row in rows if row["name"] == name)

    assert client("POST", "/v2/repository/models/one/unload").status == 200
    assert state("one") != "READY"
    assert state("two") == "READY"
    assert client("POST", INFER, {"inputs": [X]}).status in (404, 503)
    assert client("POST", "/v2/repository/models/one/load", b"{}").document == {"name": "one", "load": True}
    assert state("one") == "READY"
    assert client("POST", INFER, {"inputs": [X]}).status == 200
    assert client("POST", "/v2/repository/models/none/load").status == 404
    assert client("POST", "/v2/repository/models/none/unload").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"parameters": {"config": "{}"}},
        {"parameters": {"file:1/model.py": "cHJpbnQoKQ=="}},
        {"parameters": ["x"]},
        b"[]",
        b"{",
    ],
)
def test_no_request_brings_a_configuration_or_a_file(serving: Any, body: Any) -> None:
    client = serving("one=echo:", management=True)
    answer = client("POST", "/v2/repository/models/one/load", body)
    assert answer.status == 400
    assert answer.error
    dependents = {"parameters": {"unload_dependents": True}}
    assert client("POST", "/v2/repository/models/one/unload", dependents).status == 200


# ---------------------------------------------------------------- what isn't offered
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/cudasharedmemory/region/a/unregister"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/one/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
def test_shared_memory_traces_and_logging_arent_there(echo: Any, method: str, path: str) -> None:
    answer = echo(method, path)
    assert answer.status == 404
    assert answer.error


def test_shared_memory_in_a_request_is_refused(echo: Any) -> None:
    region = {"shared_memory_region": "secret_region", "shared_memory_byte_size": 12}
    there = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": region}]}
    back = {"inputs": [X], "outputs": [{"name": "x", "parameters": region}]}
    for body in (there, back):
        answer = echo("POST", INFER, body)
        assert answer.status == 400
        assert "shared memory" in answer.error
        assert "secret_region" not in answer.error


def test_the_extensions_are_those_that_answer(echo: Any) -> None:
    assert echo("GET", "/v2").document["extensions"] == [
        "binary_tensor_data",
        "classification",
        "explain",
        "model_configuration",
        "model_repository",
        "statistics",
    ]
    assert echo("GET", "/v2/models/one/stats").status == 200


@pytest.mark.parametrize("path", ["/v2", "/v2/models", "/v2/models/one", "/v2/models/one/ready", "/v1/models"])
def test_head_works_where_get_does(echo: Any, path: str) -> None:
    answer = echo("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(echo("GET", path).body)


# ---------------------------------------------------------------- more than two gigabytes (R45)
@pytest.mark.parametrize(
    "path",
    [
        INFER,
        "/v1/models/one:predict",
        "/invocations",
        "/v2/models/one/generate",
        "/v2/models/one/generate_stream",
        "/v2/repository/index",
        "/v1/chat/completions",
    ],
)
def test_a_body_of_three_gigabytes_is_refused_by_its_head(serving: Any, path: str) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", max_body=1000)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000000\r\n\r\n"
    with socket.create_connection((client.host, client.port), timeout=5) as stream:
        stream.sendall(head.encode())
        came = b""
        while b"bytes that this server takes" not in came and (piece := stream.recv(65536)):
            came += piece
    assert came.startswith(b"HTTP/1.1 413 ")
    assert b"bytes that this server takes" in came


def test_our_client_is_told_and_copies_nothing(load: Any, serving: Any) -> None:
    import resource

    import aiaas_sdk as aiaas

    client = serving("one=echo:?x=FP32[-1,3]", max_body=1000)
    large = np.zeros((184_000_000, 3), np.float32)  # 2.2 GB, of which no page is touched
    with load(f"{client.url}/v2/models/one", timeout=30) as model:
        assert model.predict(large[:1]).array.shape == (1, 3)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(aiaas.PayloadTooLargeError, match="1000 bytes"):
            model.predict(large)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB
        assert model.predict(large[:1]).array.shape == (1, 3)
