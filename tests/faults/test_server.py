"""The fault server itself: right answers, the order of faults, the log, and that it ends."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.faults import (
    Fault,
    FaultServer,
    answer,
    claim,
    content,
    cut,
    drip,
    edited,
    raw,
    refuse,
    reset,
    slow,
    stall,
    status,
)
from tests.stopwatch import Stopwatch
from tests.waiting import until

X = np.ones((1, 3), np.float32)
GET = b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"


# ---------------------------------------------------------------- right answers
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "BF16", "BYTES"]
)
def test_it_doubles_every_datatype(load: Any, dtype: str, binary: bool) -> None:
    names = {"?": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}
    datatype = dtype if dtype[0] == "B" else names[dtype[0]] + (str(8 * int(dtype[1])) if dtype != "?" else "")
    if datatype in ("FP16", "BF16") and not binary:
        pytest.skip("JSON hasn't got it")
    x = np.array([[0, 1, 3]], "f4").astype({"BF16": "f4", "BYTES": object}.get(dtype, dtype))
    if datatype == "BYTES":
        x = np.array([[b"a", b"", b"bc"]], object)
    with FaultServer(datatype=datatype, binary=binary) as server, load(server.address, timeout=5) as model:
        y = model.predict(x).array
    assert y.tolist() == (x + x).tolist()


def test_it_speaks_as_a_server_does(server: FaultServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for path, code in {"/v2": 200, "/v2/models/double": 200, "/v2/models/other": 404, "/x": 404}.items():
        connection.request("GET", path)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (code, True)
    connection.request("POST", "/v2/models/double/infer", b"{}")
    assert connection.getresponse().status == 400
    connection.close()
    assert [seen.verb for seen in server.requests] == ["server", "metadata", "metadata", "other", "predict"]
    assert len(server.connections) == 1


# ---------------------------------------------------------------- the script
def test_faults_come_in_order_then_the_last_one_then_right_answers(case: Any) -> None:
    model = case.open(retry=None)

    def outcomes(count: int) -> list[int | None]:
        found = []
        for _ in range(count):
            try:
                model.predict(X)
                found.append(None)
            except aiaas.StatusError as error:
                found.append(error.status)
        return found

    case.server.script([status(503), answer(), status(429)])
    assert outcomes(5) == [503, None, 429, None, None]
    case.server.script([answer()], then=status(400))
    assert outcomes(3) == [None, 400, 400]
    case.server.on("predict", status(413), answer())
    assert outcomes(3) == [413, None, 400]
    case.server.on("predict", then=status(422))
    assert outcomes(2) == [422, 422]
    case.server.on("predict")
    case.server.script()
    assert outcomes(1) == [None]
    assert [seen.fault for seen in case.server.requests[:3]] == ["status(503)", "answer", "status(429)"]


def test_what_can_not_be_is_told(server: FaultServer) -> None:
    with pytest.raises(ValueError, match="no verb 'infer'"):
        server.on("infer", reset())
    with pytest.raises(ValueError, match="script"):
        server.on("predict", stall("accept"))
    with pytest.raises(ValueError, match="down"):
        server.script(then=refuse(1))
    with pytest.raises(TypeError, match="call the function"):
        server.script([reset])  # type: ignore[list-item]  # a slip of many


def test_a_fault_of_ones_own(case: Any) -> None:
    case.open()
    case.server.on("predict", Fault("mine", lambda exchange: exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")))
    case.fails(aiaas.ProtocolError)
    assert case.server.requests[0].fault == "mine"


# ---------------------------------------------------------------- byte for byte
@pytest.fixture
def client(server: FaultServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        yield connection


def everything(client: socket.socket) -> bytes:
    came = b""
    while piece := client.recv(65536):
        came += piece
    return came


def test_the_stages_of_an_answer(server: FaultServer) -> None:
    def told(fault: Fault) -> bytes:
        server.script([fault])
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(GET)
            return everything(client)

    whole = told(answer({"connection": "close"}))
    head, _, body = whole.partition(b"\r\n\r\n")
    assert told(cut("accept")) == told(cut("request")) == b""
    assert b"\r\n\r\n" not in told(cut("head"))
    assert told(cut("body")).endswith(b"\r\n\r\n" + body[: len(body) // 2])
    assert told(cut("chunk header")).endswith(b"\r\n\r\n00")
    assert told(cut("chunk")).endswith(body[: len(body) // 2 - 4])
    assert told(cut("last chunk")).endswith(body + b"\r\n")
    assert told(raw(b"anything")) == b"anything"
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("stage", ["accept", "request", "head", "body", "chunk"])
def test_a_reset_is_a_reset(server: FaultServer, stage: Any) -> None:
    def talk() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(GET)
            everything(client)

    server.script([reset(stage)])
    with pytest.raises(ConnectionError):
        talk()


def test_a_drip_drips(server: FaultServer, client: socket.socket) -> None:
    server.script([drip("body", size=10, every=0.02)])
    begun, came = time.monotonic(), b""
    client.sendall(GET)
    for _ in range(1000):
        came += client.recv(65536)
        # the first ten bytes of the body may come at once, and each ten more a while later
        drops = len(came.partition(b"\r\n\r\n")[2]) // 10
        assert time.monotonic() - begun >= 0.02 * (drops - 1)
        if drops >= 4:
            break
    assert drops >= 4


def test_claims_and_edits(server: FaultServer, client: socket.socket) -> None:
    server.script([edited(lambda document: document.update(name="else")), content("text"), claim(1000)])
    for words in (b'"name":"else"', b"\r\n\r\ntext", b"content-length: 1000"):
        client.sendall(GET)
        assert words in client.recv(65536)


# ---------------------------------------------------------------- the port
def listening(port: int) -> socket.socket | None:
    """A connection to the port, if somebody listens."""
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=5)
    except ConnectionRefusedError:
        return None


def test_a_port_is_closed_in_its_turn_and_opens_again(server: FaultServer, client: socket.socket) -> None:
    server.script([status(503), refuse(0.3), status(502)])
    client.sendall(GET)
    assert client.recv(65536).startswith(b"HTTP/1.1 503")
    assert client.recv(65536) == b""  # it carried no request any more
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    with until(lambda: listening(server.port)) as again:
        again.sendall(GET)
        assert again.recv(65536).startswith(b"HTTP/1.1 502")


def test_down_and_up(server: FaultServer) -> None:
    for _ in range(3):
        with server.down(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        socket.create_connection(("127.0.0.1", server.port)).close()


def test_what_is_idle_is_closed_without_a_word() -> None:
    with FaultServer(idle=0.1) as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        begun = time.monotonic()
        client.sendall(GET)
        assert b"connection" not in client.recv(65536)
        assert client.recv(65536) == b""
        assert time.monotonic() - begun >= 0.1


# ---------------------------------------------------------------- the log
def test_the_log_says_what_came_when_and_what_came_again(case: Any, hung_up: Any) -> None:
    case.open(headers={"X-Mine": "a"})
    case.server.on("predict", status(503, retry_after=0.2), reset())
    watch = Stopwatch()
    case.passes(attempts=2)  # the reset was on a kept connection
    first, second, third = case.server.requests
    assert [seen.attempt for seen in case.server.requests] == [1, 2, 2]
    assert {seen.id for seen in case.server.requests} == {first.id}
    assert case.server.duplicates == (second, third)
    assert case.server.gaps[0] >= 0.2 > watch.took(case.server.gaps[1])
    assert first.headers["x-mine"] == "a"
    assert (first.method, first.path) == ("POST", "/v2/models/double/infer")
    assert first.document["inputs"][0]["name"] == "x"
    assert first.connection == second.connection != third.connection
    case.model.close()
    hung_up(case.server.connections[-1])
    case.server.clear()
    assert (case.server.requests, case.server.connections) == ((), ())


def test_it_ends_at_once_whatever_it_is_doing() -> None:
    before = threading.active_count()
    with FaultServer() as server:
        server.script([slow(20), drip("body"), stall()])
        clients = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(5)]
        for client in clients:
            client.sendall(GET)
        time.sleep(0.2)
        watch = Stopwatch()
    assert watch.took() < 1
    assert threading.active_count() <= before
    for client in clients:
        client.close()
    server.close()
