"""V07, V11: models that fail, and clients that go, over the wire: what each is told, and that nobody else notices."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any

import pytest

from tests.server.lab import PASSES
from tests.stopwatch import Stopwatch

INFER = "/v2/models/lab/infer"


@pytest.fixture(autouse=True)
def _no_passes_yet() -> None:
    PASSES.clear()


@pytest.fixture
def client(lab: str, serving: Any) -> Any:
    return serving(f"lab={lab}", warm_up=False)


def asking(one: float, mood: float = 0.0) -> dict[str, Any]:
    return {"id": f"call-{one}", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [one, mood]}]}


@pytest.mark.parametrize(
    ("mood", "says"),
    [(-1, "raised RuntimeError; the server's log says more"), (-7, "[1, 4]"), (-9, "")],
    ids=["raises", "shape", "nothing"],
)
def test_a_model_that_fails_is_500_on_every_path_and_the_log_has_the_request(
    client: Any, mood: float, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {INFER: asking(7, mood), "/v1/models/lab:predict": {"instances": [[7, mood]]}}
    asked["/invocations"] = asked["/v1/models/lab:predict"]
    with caplog.at_level(logging.ERROR, logger="aiaas_sdk.server"):
        for path, body in asked.items():
            answer = client("POST", path, body)
            assert answer.status == 500, answer.body
            told = answer.document.get("message") or answer.document["error"]
            assert says in told
            assert "a bad row" not in told  # which could be a path, or a password
            assert "Traceback" not in told
            assert ".py" not in told
            assert client("POST", INFER, asking(1)).status == 200  # on the same connection
    assert any("call-7" in record.getMessage() for record in caplog.records)
    if mood == -1:
        assert "a bad row" in caplog.text  # for the operator


def test_another_datatype_is_told_as_what_it_is(client: Any) -> None:
    (y, _) = client("POST", INFER, asking(7, -6)).document["outputs"]
    assert (y["datatype"], y["data"]) == ("INT64", [14, -12])


def test_what_is_no_number_is_an_answer(client: Any) -> None:
    answer = client("POST", INFER, asking(7, -8))
    assert answer.status == 200
    assert "NaN" not in answer.body.decode()  # which isn't JSON
    outputs = {entry["name"]: entry["data"] for entry in answer.document["outputs"]}
    assert outputs["y"] == [None, None]
    assert client("POST", "/v1/models/lab:predict", {"instances": [[7, -8]]}).document["predictions"][0]["y"][0] is None


def begun(client: Any, body: dict[str, Any]) -> socket.socket:
    """A request that is under way."""
    raw = json.dumps(body).encode()
    stream = socket.create_connection((client.host, client.port), timeout=10)
    stream.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return stream


def test_who_leaves_while_he_waits_is_never_run(client: Any) -> None:
    with begun(client, asking(1, 0.6)):
        while not PASSES:
            time.sleep(0.005)
        with begun(client, asking(2)):
            time.sleep(0.2)
        assert client("POST", INFER, asking(3)).status == 200
    assert {row[0] for rows in PASSES for row in rows.tolist()} == {1, 3}


def test_who_leaves_while_he_is_run_keeps_the_models_place_until_it_ends(client: Any) -> None:
    watch = Stopwatch()
    with begun(client, asking(1, 1.0)):
        while not PASSES:
            time.sleep(0.005)
    assert client("POST", INFER, asking(2)).status == 200  # and not beside the other one
    assert watch.took() > 0.9
