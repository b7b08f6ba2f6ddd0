"""Other servers of `/invocations`, and servers that fail: no peer is needed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing import FaultServer
from aiaas_sdk.testing.faults import content, status

JSON = {"content-type": "application/json"}


class Container(BaseHTTPRequestHandler):
    """As SageMaker wants a container: /ping, /invocations, nothing else. /hosted has no /ping, as Databricks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hosted = self.path.startswith("/hosted")
        code = 405 if self.path.endswith("/invocations") else 200 if self.path == "/ping" and not hosted else 404
        self._say(code, b"")

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["content-length"])))  # type: ignore[attr-defined]
        self._say(200, json.dumps(self.server.answer).encode())  # type: ignore[attr-defined]

    def _say(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-amzn-requestid", "r-1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def container() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Container)
    server.seen, server.answer = None, None
    server.url = f"mlflow+http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("answer", [{"predictions": [0.5, 1]}, [0.5, 1], {"outputs": [0.5, 1.0]}])
def test_a_container_of_sagemaker(load: Any, container: Any, answer: Any) -> None:
    container.answer = answer
    with load(container.url) as model:
        found = model.predict([[1.5], [2.5]])
        assert model.info().platform == "invocations"
        assert found["predictions"].tolist() == [0.5, 1.0]
        assert found.request_id == "r-1"
        assert container.seen == {"inputs": [[1.5], [2.5]]}
        # a table is MLflow's own; TensorFlow Serving has columns as any other inputs
        model.predict({"a": [1], "b": ["x"]})
        assert container.seen == {"inputs": {"a": [1], "b": ["x"]}}


def test_a_host_without_ping(load: Any, container: Any) -> None:
    container.answer = {"predictions": [1]}
    with load(f"{container.url}/hosted/churn/invocations") as model:
        assert model.info().name == "churn"
        assert model.ready()
        assert model.predict([1.0]).array.tolist() == [1]


@pytest.mark.parametrize("answer", [{"predictions": [1, "a"]}, {"predictions": [{"a": 1}, {"b": 1}]}, {}])
def test_answers_that_are_none(load: Any, container: Any, answer: Any) -> None:
    container.answer = answer
    with load(container.url) as model, pytest.raises(aiaas.ProtocolError):
        model.predict([1.0])


@pytest.fixture
def faulty() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def opened(server: FaultServer, *then: Any) -> str:
    """A server that opens as MLflow's does, and goes on so."""
    server.script([content(b"\n", JSON), content(b"3.17.2", JSON), *then])
    return f"mlflow+{server.address.partition('/v2/')[0]}"


def test_a_busy_server_is_asked_again(load: Any, faulty: FaultServer) -> None:
    address = opened(faulty, status(503, retry_after=0.05), content(b'{"predictions": [3]}', JSON))
    with load(address, timeout=20) as model:
        answer = model.predict([1])
        assert (answer.attempts, answer.array.tolist()) == (2, [3])


def test_what_is_no_json_is_told(load: Any, faulty: FaultServer) -> None:
    address = opened(faulty, content(b"<html>hello", {"content-type": "text/html"}))
    with load(address, timeout=20) as model, pytest.raises(aiaas.ProtocolError, match="no JSON"):
        model.predict([1])


def test_mlflows_own_limit_of_time(load: Any, faulty: FaultServer) -> None:
    address = opened(faulty, status(504, b"Request processing time exceeded limit", headers=JSON))
    with load(address, timeout=20, retry=None) as model, pytest.raises(aiaas.UnavailableError, match="exceeded limit"):
        model.predict([1])


def test_a_key_travels(load: Any, faulty: FaultServer) -> None:
    with load(opened(faulty, content(b'{"predictions": [3]}', JSON)), api_key="k-1", timeout=20) as model:
        model.predict([1])
    assert faulty.requests[-1].headers["authorization"] == "Bearer k-1"
    assert faulty.requests[-1].path == "/invocations"


def test_the_server_that_still_loads(load: Any, faulty: FaultServer) -> None:
    # it is waited for as long as there is time
    faulty.script([status(503), content(b"\n", JSON), content(b"3.17.2", JSON)], then=status(503))
    with load(f"mlflow+{faulty.address.partition('/v2/')[0]}", timeout=20) as model:
        assert model.info().platform == "mlflow"
        assert not model.with_options(retry=None).ready()


def test_amazon_wants_signatures(load: Any) -> None:
    from aiaas_mlflow.backend import MlflowBackend

    from aiaas_sdk.address import parse
    from aiaas_sdk.flow import Reply
    from aiaas_sdk.records.call import Call

    backend = MlflowBackend(
        parse("mlflow+https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/x/invocations"), {}
    )
    backend.prepare()
    refused = backend.refused(Call("predict"), Reply(403, {}, b'{"message":"Missing Authentication Token"}'))
    assert "SigV4" in str(refused)


def test_an_address_with_a_version(load: Any) -> None:
    with pytest.raises(aiaas.AddressError, match="version"):
        load("mlflow+http://127.0.0.1:5000/churn@3")
