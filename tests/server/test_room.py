"""The bodies of all requests under way have one bound."""

from __future__ import annotations

import gzip
import json
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk import machine
from aiaas_sdk.server.serving import Serving
from tests.waiting import until

KIB = 1024
LIMIT = 2000 * KIB
"""Of bodies so large that each is read as it comes; smaller ones are known when they are whole."""
INFER = "/v2/models/one/infer"
ONE = "one=echo:?x=FP32[-1,3]"
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}


@pytest.fixture
def server(serving: Any) -> Any:
    return serving(ONE, max_bodies=LIMIT)


def body(size: int) -> bytes:
    told = json.dumps({"inputs": [X]}).encode()
    return told + b" " * (size - len(told))


class Upload:
    """A request whose body comes in parts."""

    def __init__(self, server: Any, size: int) -> None:
        self._rest = body(size)
        self._stream = socket.create_connection((server.host, server.port), timeout=20)
        self._stream.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())

    def send(self, size: int) -> None:
        part, self._rest = self._rest[:size], self._rest[size:]
        self._stream.sendall(part)

    def answered(self) -> bool:
        return bool(select.select([self._stream], [], [], 0)[0])

    def end(self) -> bytes:
        self.send(len(self._rest))
        return self.answer()

    def answer(self) -> bytes:
        came = b""
        while b"\r\n\r\n" not in came and (piece := self._stream.recv(65536)):
            came += piece
        self._stream.close()
        return came

    def leave(self) -> None:
        self._stream.close()


def test_large_bodies_at_once_are_told_to_come_again_and_small_ones_are_taken(server: Any) -> None:
    both = [Upload(server, 1800 * KIB) for _ in range(2)]
    for upload in both:
        upload.send(1500 * KIB)
    refused = until(lambda: next((upload for upload in both if upload.answered()), None))
    taken = both[1 - both.index(refused)]
    told = refused.answer()
    assert told.startswith(b"HTTP/1.1 503 "), told
    assert b"\r\nretry-after: " in told
    assert server("POST", INFER, body(100 * KIB)).status == 200
    assert taken.end().startswith(b"HTTP/1.1 200 ")
    until(lambda: server("POST", INFER, body(1800 * KIB)).status == 200)


def test_one_alone_is_taken_whatever_its_size(server: Any) -> None:
    assert Upload(server, 4 * LIMIT).end().startswith(b"HTTP/1.1 200 ")


def test_who_announces_much_and_sends_little_keeps_nobody_out(server: Any) -> None:
    slow = [Upload(server, 900 * 1024 * KIB) for _ in range(3)]
    for upload in slow:
        upload.send(4 * KIB)
    assert Upload(server, 1500 * KIB).end().startswith(b"HTTP/1.1 200 ")
    for upload in slow:
        upload.leave()


def test_the_memory_comes_back_however_a_request_ends(server: Any) -> None:
    for _ in range(5):
        gone = Upload(server, 1800 * KIB)
        gone.send(1500 * KIB)
        gone.leave()
        assert server("POST", INFER, b"{" * 1500 * KIB).status in (400, 503)
        until(lambda: server("POST", INFER, body(1500 * KIB)).status == 200)


def test_what_is_unpacked_counts(server: Any) -> None:
    held = Upload(server, 1800 * KIB)
    held.send(1000 * KIB)
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert server("POST", INFER, gzip.compress(body(1500 * KIB)), packed).status == 503
    assert server("POST", INFER, gzip.compress(body(500 * KIB)), packed).status == 200
    held.leave()


# ---------------------------------------------------------------- how much there is
def test_workers_share_half_of_the_memory() -> None:
    assert Serving(workers=4).room == machine.memory() // 8
    assert Serving(max_bodies=1000, workers=4).room == 1000


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Puts this process into groups with such files."""

    def put(mine: str, files: dict[str, str]) -> None:
        (tmp_path / "mine").write_text(mine)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    monkeypatch.setattr(machine, "_MINE", tmp_path / "mine")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    return put


@pytest.mark.parametrize(
    ("mine", "files"),
    [
        ("0::/\n", {"memory.max": "1048576\n"}),
        ("0::/pods/one\n", {"memory.max": "max\n", "pods/memory.max": "1048576\n", "pods/one/memory.max": "2097152\n"}),
        ("0::/not/seen/here\n", {"memory.max": "1048576\n"}),
        ("5:cpu,memory:/one\n4:cpu:/\n", {"memory/one/memory.limit_in_bytes": "1048576\n"}),
    ],
)
def test_a_container_has_what_its_groups_allow(groups: Any, mine: str, files: dict[str, str]) -> None:
    groups(mine, files)
    assert machine.memory() == 1024**2


def test_a_group_without_a_limit_has_what_the_machine_has(groups: Any) -> None:
    installed = machine.memory()
    groups("0::/\n", {"memory.max": "max\n"})
    assert machine.memory() >= installed
