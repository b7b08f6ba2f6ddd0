"""Batching as clients see it: by the protocol, with many of them, and what a model does before it is ready."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.server.lab import PASSES, TRACES
from tests.stopwatch import Stopwatch

INFER = "/v2/models/lab/infer"


@pytest.fixture(autouse=True)
def _no_passes_yet() -> None:
    PASSES.clear()


@pytest.fixture
def client(lab: str, serving: Any) -> Any:
    return serving(f"lab={lab}", f"narrow={lab}", warm_up=False)


def asking(*identities: float, mood: float = 0.0, **parameters: Any) -> dict[str, Any]:
    data = [value for one in identities for value in (one, mood)]
    x = {"name": "x", "datatype": "FP32", "shape": [len(identities), 2], "data": data}
    return {"inputs": [x], **({"parameters": parameters} if parameters else {})}


def asked(url: str, *identities: float, mood: float = 0.0) -> Any:
    """The answer to one client, or its error."""
    with aiaas.load(f"{url}/v2/models/lab", retry=None) as model:
        try:
            return model.predict(np.array([[one, mood] for one in identities], np.float32))
        except aiaas.AiaasError as error:
            return error


@pytest.fixture
def busy(client: Any) -> Iterator[None]:
    """The model has something to do for 0.4 s."""
    thread = threading.Thread(target=asked, args=(client.url, 999), kwargs={"mood": 0.4})
    thread.start()
    while not PASSES:
        time.sleep(0.005)
    yield
    thread.join()


def test_clients_that_come_together_share_a_pass(client: Any, busy: None) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: asked(client.url, one, one + 0.5), range(8)))
    assert len(PASSES) < 6
    assert sum(len(x) for x in PASSES) == 17
    for one, answer in enumerate(found):
        assert answer["y"].tolist() == [[2 * one, 0], [2 * one + 1, 0]]


def test_one_bad_client_harms_nobody(client: Any, busy: None) -> None:
    """R53, V08: an item that fails discards no other's result."""
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: asked(client.url, one, mood=-1 if one == 3 else 0), range(8)))
    assert isinstance(found.pop(3), aiaas.ModelError)
    assert [answer["y"][0, 0] for answer in found] == [0, 2, 4, 8, 10, 12, 14]


def test_a_model_that_leaves_the_process_leaves_only_its_request(client: Any) -> None:
    answer = client("POST", INFER, asking(1, mood=-2))
    assert answer.status == 500
    assert "SystemExit" in answer.error
    assert client("POST", INFER, asking(2)).document["outputs"][0]["data"] == [4, 0]


def test_what_cant_be_assembled_is_the_clients_and_the_next_one_works(client: Any) -> None:
    """R52: an exception while a batch is sized ends no batcher."""
    huge = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40, 2], "data": [1, 2]}]}
    ragged = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    for bad in (huge, ragged, {"inputs": []}):
        assert client("POST", INFER, bad).status == 400
    assert client("POST", INFER, asking(2)).status == 200


def test_the_parameters_of_a_request_alone_stay_whole(client: Any) -> None:
    """R56: batching cut parameters of a single request to pieces."""
    told = asking(1, 2, text="as it is", number=7, nested={"a": [1, 2, {"b": "c"}]}) | {"id": "one-7"}
    answer = client("POST", INFER, told)
    assert answer.status == 200
    assert answer.document["id"] == "one-7"
    assert answer.document["outputs"][0]["data"] == [2, 0, 4, 0]
    assert PASSES[-1].tolist() == [[1, 0], [2, 0]]


def test_a_deadline_that_passes_in_the_queue_is_504_without_work(client: Any, busy: None) -> None:
    watch = Stopwatch()
    answer = client("POST", INFER, asking(5, timeout=100_000))
    assert answer.status == 504
    assert "wasn't run" in answer.error
    assert watch.took() < 0.35
    assert client("POST", INFER, asking(6)).status == 200
    assert [5, 0] not in [row for x in PASSES for row in x.tolist()]


def test_a_hopeless_deadline_is_503_at_once_and_says_when_to_come_again(lab: str, serving: Any) -> None:
    client = serving(f"lab={lab}", warm_up=False, max_batch_rows=1)
    assert client("POST", INFER, asking(0, mood=0.3)).status == 200  # so long does it take
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(asked, client.url, one, mood=0.3) for one in range(1, 5)]
        while len(PASSES) < 2:
            time.sleep(0.005)
        time.sleep(0.1)
        watch = Stopwatch()
        answer = client("POST", INFER, asking(9, timeout=250_000))
        assert watch.took() < 0.15
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "overloaded" in answer.error
        for other in others:
            assert not isinstance(other.result(), Exception)
    assert [9, 0] not in [row for x in PASSES for row in x.tolist()]


def test_a_pass_belongs_to_the_trace_of_its_request_and_to_no_earlier_one(client: Any) -> None:
    traces = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    for headers in ({"traceparent": traces[0]}, {}, {"traceparent": traces[1]}):
        assert client("POST", INFER, asking(1), headers).status == 200
    assert TRACES[-3:] == [traces[0], None, traces[1]]


@pytest.mark.slow
def test_clients_that_gave_up_dont_spoil_those_after_them(client: Any) -> None:
    """R36: 50 that time out, then 50 with a long limit."""

    def hasty(one: int) -> int:
        body = json.dumps(asking(one, mood=0.06, timeout=50_000)).encode()
        import http.client

        connection = http.client.HTTPConnection(client.host, client.port, timeout=20)
        try:
            connection.request("POST", INFER, body)
            return connection.getresponse().status
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as threads:
        assert set(threads.map(hasty, range(50))) <= {503, 504}
        found = list(threads.map(lambda one: asked(client.url, one), range(50)))
    assert [answer["y"][0, 0] for answer in found] == [2 * one for one in range(50)]


@pytest.mark.slow
def test_a_shared_pass_gives_what_each_request_gets_alone(serving: Any, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    x = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    aiaas.save(module, tmp_path / "lab", example=x[:1])
    url = serving(str(tmp_path / "lab")).url
    with aiaas.load(f"{url}/v2/models/lab") as model, ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda one: model.predict(x[one : one + 1]).array, range(64)))
    with torch.inference_mode():
        np.testing.assert_allclose(np.concatenate(together), module(torch.from_numpy(x)).numpy(), atol=1e-6)


# ---------------------------------------------------------------- before it is ready
def test_a_model_has_run_once_before_anybody_may_ask(lab: str, serving: Any) -> None:
    serving(f"lab={lab}")
    assert [x.tolist() for x in PASSES] == [[[0, 0]]]
    PASSES.clear()
    serving(f"lab={lab}", warm_up=False)
    assert PASSES == []


def test_a_model_that_fails_in_its_first_run_is_named(lab: str, serving: Any) -> None:
    with (
        pytest.raises(aiaas.ModelError, match=r"(?s)'lab'.*first run.*ValueError: a zero") as raised,
        serve_in_thread([f"lab={lab}ones"]),
    ):
        pass
    assert "warm_up=False" in str(raised.value)
    client = serving(f"lab={lab}ones", warm_up=False)
    assert client("POST", INFER, asking(1, mood=0.001)).status == 200


def test_a_first_run_of_a_guessed_shape_may_fail(lab: str, serving: Any, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "aiaas_sdk.server"):
        client = serving(f"lab={lab}ones,free")
    assert "first run" in caplog.text
    assert client("POST", INFER, asking(1, mood=0.001)).status == 200
