"""More connections than the server will hold, or has files for."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aiaas_sdk.server import connections, running

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(params=["httptools", "h11"])
def client(request: pytest.FixtureRequest, serving: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    kind = connections.protocol_class() if request.param == "httptools" else connections._OnH11
    monkeypatch.setattr(running, "protocol_class", lambda: kind)
    return serving("one=echo:?x=FP32[-1,3]", max_connections=3)


@contextlib.contextmanager
def connected(host: str, port: int, count: int, *, said: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(count):
            streams.append(stack.enter_context(socket.create_connection((host, port), timeout=5)))
            if said:
                streams[-1].sendall(said)
                assert streams[-1].recv(4096).startswith(b"HTTP/1.1 200")
                time.sleep(0.01)  # the server's clock has milliseconds
        yield streams


def is_open(stream: socket.socket) -> bool:
    """Whether the server still answers on it."""
    try:
        stream.sendall(GET)
        return stream.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def test_the_longest_idle_connection_makes_room(client: Any) -> None:
    with connected(client.host, client.port, 3, said=GET) as streams:
        time.sleep(0.05)
        assert is_open(streams[0])  # so that the second is the longest idle one
        with connected(client.host, client.port, 1, said=GET) as others:
            time.sleep(0.1)
            assert [is_open(stream) for stream in (*streams, *others)] == [True, False, True, True]


def test_connections_that_never_said_anything_make_room_too(client: Any) -> None:
    with connected(client.host, client.port, 8):
        time.sleep(0.1)
        assert client("GET", "/v2").status == 200


def test_where_all_are_busy_a_new_one_is_told_to_come_again(client: Any) -> None:
    begun = b"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
    with connected(client.host, client.port, 3) as streams:
        for stream in streams:
            stream.sendall(begun)
        time.sleep(0.3)
        with socket.create_connection((client.host, client.port), timeout=5) as stream:
            came = stream.recv(4096)
            assert came.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in came
            assert stream.recv(4096) == b""
    time.sleep(0.3)
    assert client("GET", "/v2").status == 200


FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140))
from aiaas_sdk.server import serve
serve(["one=echo:"], port=0, announce=lambda url, names: print(url, flush=True))
"""


@pytest.mark.slow
def test_with_few_files_500_idle_connections_dont_keep_others_out() -> None:
    process = subprocess.Popen([sys.executable, "-c", FEW_FILES], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").partition(":")
        with connected(host, int(port), 500):
            before = _seconds(process.pid)
            for _ in range(20):
                other = http.client.HTTPConnection(host, int(port), timeout=5)
                other.request("GET", "/v2/health/ready")
                assert other.getresponse().status == 200
                other.close()
            time.sleep(1)
            assert _seconds(process.pid) - before < 0.5  # it doesn't turn in circles
    finally:
        process.kill()
        process.communicate()


def _seconds(pid: int) -> float:
    """Processor time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_the_machines_limit_of_files_is_kept_in_mind() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        assert connections.most_connections(100) == 100
        assert connections.most_connections(10_000) == 936
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
