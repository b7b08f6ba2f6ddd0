"""Bodies, however they come: in one piece or many, before or after the answer, one after another."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server import incoming
from tests.server.process import Server
from tests.waiting import until

KIB = 1024
SLICE = 8 * KIB
"""Bytes that are read while a head comes."""
LARGEST = 1024 * KIB
"""Of a body that is read to where it lies."""


def request(rows: int, *, path: str = "/v2/models/one/infer", close: bool = False) -> bytes:
    """Rows of three numbers, as bytes behind their JSON."""
    x = np.arange(3 * rows, dtype=np.float32)
    told = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "parameters": {"binary_data_size": x.nbytes}}
    text = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Inference-Header-Content-Length: {len(text)}",
        f"Content-Length: {len(text) + x.nbytes}",
        *(["Connection: close"] if close else []),
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text + x.tobytes()


class Client:
    def __init__(self, server: Any) -> None:
        self._stream = socket.create_connection((server.host, server.port), timeout=20)
        self._came = b""

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._stream.sendall(piece)

    def answer(self) -> tuple[int, bytes]:
        while b"\r\n\r\n" not in self._came:
            self._came += self._read()
        head, _, rest = self._came.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        while len(rest) < size:
            rest += self._read()
        self._came = rest[size:]
        return int(head[9:12]), rest[:size]

    def _read(self) -> bytes:
        piece = self._stream.recv(1 << 20)
        assert piece, "the connection ended"
        return piece

    def close(self) -> None:
        self._stream.close()


@pytest.fixture
def server(serving: Any) -> Any:
    return serving("one=echo:?x=FP32[-1,3]", "text=echo:")


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    made = Client(server)
    yield made
    made.close()


def given_back(client: Client, rows: int) -> None:
    status, body = client.answer()
    assert status == 200, body[:500]
    assert body.endswith(np.arange(3 * rows, dtype=np.float32).tobytes())


@pytest.mark.parametrize(
    "size", [300, SLICE - 400, SLICE - 12, SLICE, SLICE + 12, 100 * KIB, LARGEST - 600, LARGEST, LARGEST + 12]
)
def test_of_any_size(client: Client, size: int) -> None:
    for _ in range(3):
        client.send(request(size // 12))
        given_back(client, size // 12)


@pytest.mark.parametrize("piece", [1, 7, 1000, SLICE, 70 * KIB])
def test_in_pieces(client: Client, piece: int) -> None:
    rows = 40 if piece < 100 else 20_000
    whole = request(rows)
    client.send(*(whole[at : at + piece] for at in range(0, len(whole), piece)))
    given_back(client, rows)


def test_one_behind_the_other_without_waiting(client: Client) -> None:
    sizes = (10, 9000, 3, 30_000, 3, 80_000, 9000)
    client.send(b"".join(request(rows) for rows in sizes))
    for rows in sizes:
        given_back(client, rows)


def test_after_a_refusal_the_rest_is_thrown_away(client: Client) -> None:
    for rows in (30_000, 80_000, 700):
        whole = request(rows, path="/v2/models/nobody/infer")
        client.send(whole[: len(whole) // 2])
        assert client.answer()[0] == 404
        client.send(whole[len(whole) // 2 :], request(rows))
        given_back(client, rows)


def test_the_connection_ends_where_the_client_wants_it(client: Client) -> None:
    client.send(request(30_000, close=True))
    given_back(client, 30_000)
    with pytest.raises(AssertionError, match="ended"):
        client.answer()


def test_a_client_that_leaves_within_it_leaves_nothing_behind(server: Any) -> None:
    first = Client(server)
    first.send(request(10))
    given_back(first, 10)
    first.close()
    spaces = [space for space in incoming._spaces.values() if space.free == incoming._MOST]
    assert spaces
    for size in (1, SLICE, 200 * KIB):
        client = Client(server)
        client.send(request(30_000)[:size])
        client.close()
    client = Client(server)
    client.send(request(10))
    given_back(client, 10)
    client.close()
    until(lambda: all(space.free == incoming._MOST for space in spaces))


def test_refused_one_behind_the_other_they_leave_nothing_behind(client: Client) -> None:
    client.send(request(10))
    given_back(client, 10)
    spaces = [space for space in incoming._spaces.values() if space.free == incoming._MOST]
    assert spaces
    client.send(b"".join(request(9000, path="/v2/models/nobody/infer") for _ in range(6)))
    for _ in range(6):
        assert client.answer()[0] == 404
    client.send(request(10))
    given_back(client, 10)
    until(lambda: all(space.free == incoming._MOST for space in spaces))


def test_more_than_there_is_space_for_come_as_they_are_read(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for space in incoming._spaces.values():
        monkeypatch.setattr(space, "free", 1000 * KIB)
    clients = [Client(server) for _ in range(6)]
    whole = request(30_000)
    for client in clients:
        client.send(whole[:-10])
    for client in clients:
        client.send(whole[-10:])
        given_back(client, 30_000)
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_idle_connections_hold_no_bodies() -> None:
    server = Server("one=echo:?x=FP32[-1,3]", patience=20.0)
    server.host = "127.0.0.1"  # type: ignore[attr-defined]
    try:
        refused, answered = request(80_000, path="/v2/models/nobody/infer"), request(80_000)
        clients = [Client(server) for _ in range(60)]
        clients[0].send(answered)
        given_back(clients[0], 80_000)
        before = server.resident()
        for client in clients:
            client.send(answered)
            given_back(client, 80_000)
            client.send(refused)
            assert client.answer()[0] == 404
        assert server.resident() - before < 20, "MiB; sixty bodies are 55"
        for client in clients:
            client.close()
    finally:
        server.close()
