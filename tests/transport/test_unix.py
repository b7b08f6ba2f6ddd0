"""Unix sockets: another way to the same origin."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.errors import ConnectError, DeadlineExceededError
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from tests.stopwatch import Stopwatch
from tests.transport.test_tls import certificate, serving

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
WHERE = "http://models.test/x"

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: Any) -> str:
    """Where the socket is. The environment names a proxy, which mustn't count."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    return str(tmp_path / "s")


def test_requests_go_over_the_socket_and_say_the_addresss_host(server: Any, send: Any, taken: Any, path: str) -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while head := taken(connection):
            heads.append(head)
            connection.sendall(OK)

    one = server(answer, None, path)
    for _ in range(3):
        assert bytes(send(Request("GET", WHERE, network=Network(unix_socket=path))).body) == b"ok"
    assert one.seen == 1
    assert heads[0].startswith(b"GET /x HTTP/1.1\r\nhost: models.test\r\n")


def test_large_bodies_go_both_ways(server: Any, send: Any, taken: Any, path: str) -> None:
    data, seen = os.urandom(1 << 22), list[bytes]()

    def answer(connection: socket.socket) -> None:
        seen.append(taken(connection).partition(b"\r\n\r\n")[2])
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)

    server(answer, None, path)
    body = (b"head", memoryview(data))
    reply = send(Request("POST", WHERE, {}, body, network=Network(unix_socket=path)), 20)
    assert seen[0] == b"head" + data
    assert reply.body == data


def test_tls_over_the_socket_is_about_the_addresss_host(
    server: Any, send: Any, answering: Any, tmp_path: Path, path: str
) -> None:
    file = certificate(tmp_path, "models.test")
    server(answering(OK), serving(file), path)
    network = Network(unix_socket=path, ca=file)
    assert send(Request("GET", WHERE.replace("http", "https"), network=network)).status == 200
    with pytest.raises(ConnectError, match=r"others\.test"):
        send(Request("GET", "https://others.test/", network=network))


def test_a_socket_that_is_not_there_or_is_none_is_a_connect_error_that_names_it(send: Any, path: str) -> None:
    request = Request("GET", WHERE, network=Network(unix_socket=path))
    with pytest.raises(ConnectError, match="No such file") as caught:
        send(request)
    assert path in str(caught.value)
    assert caught.value.retryable
    Path(path).touch()
    with pytest.raises(ConnectError):
        send(request)
    with pytest.raises(ConnectError, match="too long"):
        send(Request("GET", WHERE, network=Network(unix_socket="/tmp/" + "x" * 200)))


def test_a_full_queue_is_waited_for_and_left_at_the_deadline(send: Any, path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    crowd = []
    for _ in range(3):
        crowd.append(socket.socket(socket.AF_UNIX))
        crowd[-1].setblocking(False)
        crowd[-1].connect_ex(path)
    request = Request("GET", WHERE, network=Network(unix_socket=path))
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match="no connection"):
        send(request, 0.3)
    assert 0.25 < watch.took() < 0.6

    def serve() -> None:
        time.sleep(0.2)
        for _ in range(4):
            connection, _ = listener.accept()
            connection.settimeout(5)
            if connection.recv(65536):
                connection.sendall(OK)
                connection.close()
                return
            connection.close()

    for one in crowd:
        one.close()
    thread = threading.Thread(target=serve)
    thread.start()
    assert send(request).status == 200
    thread.join()
    listener.close()
