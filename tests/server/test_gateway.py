"""A server before another one: what the other says comes through where it means the same."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from tests.stopwatch import Stopwatch

X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
SPEC = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
ASKED = {"inputs": [X]}
SAID = [{"role": "user", "content": "x"}]


class Peer(BaseHTTPRequestHandler):
    """An endpoint whose infer answers whatever `plan` says."""

    protocol_version = "HTTP/1.1"
    plan: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def do_GET(self) -> None:
        document: Any = {"name": "peer", "version": "1", "extensions": []}
        if "/models/" in self.path:
            facts = {"labels": ["a", "b", "c"], "digest": "sha256:1", "device": "cpu", "max_batch_size": 2}
            document = {"name": "far", "versions": ["1"], "platform": "p", "inputs": SPEC, "outputs": SPEC}
            document["parameters"] = facts
        self.answer(200, {}, json.dumps(document).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(*self.plan)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[tuple[str, Callable[..., None]]]:
    """The address of a model of a peer, and how to set what it answers."""
    kind = type("Planned", (Peer,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def plan(status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind.plan = (status, headers, data)  # type: ignore[attr-defined]

    yield f"http://127.0.0.1:{server.server_port}/v2/models/far", plan
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_gateway_answers_as_the_server_behind_it(serving: Any, load: Any) -> None:
    behind = serving("one=echo:?x=FP32[-1,3]")
    client = serving(f"far={behind.url}/v2/models/one")
    with load(f"{client.url}/v2/models/far") as model:
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        answer = model.predict(x)
        assert (answer.array.tolist(), answer.version) == (x.tolist(), "1")
        assert model.ready()
    refused = client("POST", "/v2/models/far/infer", {"inputs": [{**X, "shape": [3]}]})
    assert refused.status == 400
    assert behind.url not in refused.error
    assert client("GET", "/v2/models/far/versions/1").status == 200
    assert client("GET", "/v2/models/far/versions/2").status == 404


def test_the_facts_of_a_model_go_through(serving: Any, peer: Any) -> None:
    client = serving(peer[0])
    facts = client("GET", "/v2/models/far").document["parameters"]
    assert facts == {"labels": ["a", "b", "c"], "digest": "sha256:1", "device": "cpu", "max_batch_size": 2}
    rows = client("POST", "/v2/models/far/infer", {"inputs": [{**X, "shape": [3, 3], "data": [0] * 9}]})
    assert rows.status == 400
    assert "3 rows" in rows.error


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, 400),
        (409, 400),
        (415, 400),
        (422, 400),
        (413, 413),
        (404, 404),
        (500, 500),
        (401, 502),
        (403, 502),
        (405, 502),
        (302, 502),
        (501, 502),
        (507, 502),
    ],
)
def test_a_status_comes_through_where_it_means_the_same(serving: Any, peer: Any, status: int, told: int) -> None:
    address, plan = peer
    client = serving(address)
    plan(status, {"error": "the words of the peer"})
    answer = client("POST", "/v2/models/far/infer", ASKED)
    assert answer.status == told
    assert ("the words of the peer" in answer.error) is (status not in (401, 403))
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize(("status", "told"), [(429, 429), (503, 503)])
def test_a_pause_that_was_asked_for_comes_through(serving: Any, peer: Any, status: int, told: int) -> None:
    address, plan = peer
    client = serving(address, retry=None)
    plan(status, {"error": "later"}, **{"retry-after": "7"})
    answer = client("POST", "/v2/models/far/infer", ASKED)
    assert (answer.status, answer.headers["retry-after"]) == (told, "7")
    assert "later" in answer.error


@pytest.mark.parametrize("status", [502, 504])
def test_a_bad_gateway_behind_this_one_is_one_here(serving: Any, peer: Any, status: int) -> None:
    address, plan = peer
    client = serving(address, retry=None)
    plan(status, b"<html>bad gateway</html>")
    assert client("POST", "/v2/models/far/infer", ASKED).status == status


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"model_name":"far","outputs":[]}'])
def test_an_answer_that_makes_no_sense_is_a_bad_gateway(serving: Any, peer: Any, body: bytes) -> None:
    address, plan = peer
    client = serving(address)
    plan(200, body)
    answer = client("POST", "/v2/models/far/infer", ASKED)
    assert answer.status == 502
    assert answer.error


@pytest.mark.slow
def test_an_endpoint_that_comes_later_is_waited_for_in_the_background(serving: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    client = serving(f"far=http://127.0.0.1:{port}/v2/models/one", retry=None)
    assert client("GET", "/v2/health/live").status == 200
    assert client("GET", "/v2/health/ready").status == 503
    assert client("GET", "/v2/models/far/ready").status == 503
    answer = client("POST", "/v2/models/far/infer", ASKED)
    assert answer.status == 502
    assert str(port) not in answer.error
    assert client("POST", "/v2/repository/index").document[0]["state"] in ("LOADING", "UNAVAILABLE")
    serving("one=echo:?x=FP32[-1,3]", port=port)
    end = time.monotonic() + 15
    while client("GET", "/v2/health/ready").status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert client("POST", "/v2/models/far/infer", ASKED).status == 200


def test_a_key_never_shows(serving: Any, peer: Any) -> None:
    address, plan = peer
    client = serving(address, api_key="k-123456", retry=None)
    plan(401, {"error": "wrong key k-123456"})
    answer = client("POST", "/v2/models/far/infer", ASKED)
    assert answer.status == 502
    assert "k-123456" not in answer.error


class Noting(Peer):
    """A peer that notes what it is asked, and takes its time."""

    seen: list[dict[str, str]]
    pause = 0.0

    def do_POST(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.pause)
        self.answer(*self.plan)


@pytest.fixture
def noting() -> Iterator[tuple[str, Any]]:
    kind: Any = type("Noting", (Noting,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"far=http://127.0.0.1:{server.server_port}/v2/models/far", kind
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_callers_deadline_goes_through_and_nobody_asks_twice(serving: Any, noting: Any, load: Any) -> None:
    """R10: the slow model does the work once."""
    address, kind = noting
    kind.pause = 1.5
    client = serving(address)
    with load(f"{client.url}/v2/models/far") as model:
        model.info()
        watch = Stopwatch()
        with pytest.raises((aiaas.DeadlineExceededError, aiaas.UnavailableError)):
            model.predict(np.ones((1, 3), np.float32), timeout=0.5)
        assert watch.took() < 0.8
    time.sleep(1.2)
    assert len(kind.seen) == 1
    assert 0 < int(kind.seen[0]["aiaas-timeout-ms"]) <= 500


@pytest.mark.slow
def test_a_gateway_does_not_retry_for_who_retries(serving: Any, noting: Any, load: Any) -> None:
    address, kind = noting
    kind.plan = (503, {}, b"{}")
    client = serving(address)
    with load(f"{client.url}/v2/models/far", retry=aiaas.Retry(attempts=3, wait=0.01)) as model:
        with pytest.raises(aiaas.UnavailableError) as caught:
            model.predict(np.ones((1, 3), np.float32))
        assert caught.value.attempts == 3
    assert len(kind.seen) == 3
    kind.seen.clear()
    assert client("POST", "/v2/models/far/infer", ASKED).status == 503  # a client that says nothing is retried for
    assert len(kind.seen) == 3


def test_a_request_that_is_not_waited_for_any_more_is_not_worked_on(serving: Any, noting: Any) -> None:
    address, kind = noting
    client = serving(address)
    answer = client("POST", "/v2/models/far/infer", ASKED, headers={"aiaas-timeout-ms": "0"})
    assert answer.status == 504
    assert kind.seen == []


@pytest.fixture
def silent() -> Iterator[str]:
    """`host:port` of a peer that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("target", "path", "body"),
    [
        ("oip+http://{}/v2/models/far", "/v2/models/far/infer", ASKED),
        ("openai+http://{}/v1#far", "/v1/chat/completions", {"model": "far", "messages": SAID}),
        ("openai+http://{}/v1#far", "/v1/embeddings", {"model": "far", "input": "x"}),
    ],
)
def test_a_callers_deadline_bounds_the_opening_too(
    serving: Any, silent: str, target: str, path: str, body: dict[str, Any]
) -> None:
    client = serving(f"far={target.format(silent)}", timeout=10)
    watch = Stopwatch()
    answer = client("POST", path, body, {"aiaas-timeout-ms": "300"})
    assert answer.status == 504
    assert 0.25 < watch.took() < 3
    assert b"opened" in answer.body
