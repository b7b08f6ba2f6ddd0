"""A server's process under what is too large, too much, or not its business: it says no, lives and stays small."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.mlp import MLP
from tests.server.process import MIB, Server
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
HEAD = b"POST /v2/models/any/infer HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = 16 * MIB
"""Bytes that the server takes."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(max_body=SMALL, patience=20.0)
    yield made
    made.close()


def well(server: Server) -> bool:
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
    return server.process.poll() is None and server.ask("/v2/models/any/infer", body, {})[0] == 200


# ---------------------------------------------------------------- V02: heads
@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 8 * MIB + b"\r\n\r\n", (b"431", b"400")),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", (b"431", b"400")),
        (b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (b"414", b"400", b"431")),
        (b"GET /v2 HTTP/1.1\r\n" + b"x-y: z\r\n" * 4 * MIB, (b"431", b"400")),
    ],
    ids=["long header", "many headers", "long target", "no end"],
)
def test_large_heads_are_refused_and_take_no_memory(server: Server, data: bytes, statuses: tuple[bytes, ...]) -> None:
    assert well(server)
    before = server.memory()
    came = server.send(data)
    assert not came or came[9:12] in statuses, came[:300]
    assert server.memory() - before < 2
    assert well(server)


# ---------------------------------------------------------------- V03: bodies
def endless() -> bytes:
    return CHUNKED + (b"100000\r\n" + bytes(MIB) + b"\r\n") * 40


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 10737418240\r\n\r\n" + bytes(MIB),
        endless(),
        CHUNKED + b"4000000000000000\r\n" + bytes(MIB),
        CHUNKED + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n",
    ],
    ids=["length of 10 GiB", "endless chunks", "chunk of 2^62", "100,000 chunks of a byte"],
)
def test_large_bodies_are_refused_and_take_no_memory(server: Server, data: bytes) -> None:
    assert well(server)
    before, begun = server.memory(), time.monotonic()
    came = server.send(data)
    assert not came or came[9:12] in (b"413", b"400"), came[:300]
    assert server.memory() - before < 64 + 1
    assert time.monotonic() - begun < 10
    assert well(server)


def test_a_bomb_is_unpacked_no_further_than_allowed(server: Server) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + 600 * block
    assert well(server)
    before = server.memory()
    status, _, body = server.ask("/v2/models/any/infer", bomb, {"Content-Encoding": "gzip"})
    assert status == 413, body
    assert server.memory() - before < 64 + 1
    assert well(server)


# ---------------------------------------------------------------- V06: small requests for much work
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("chat/completions", {"n": 10**6}),
        ("chat/completions", {"max_tokens": 10**30}),
        ("chat/completions", {"logprobs": True, "top_logprobs": 10**6}),
        ("completions", {"prompt": ["a"] * 10**5}),
        ("completions", {"prompt": "a", "best_of": 10**6}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_small_request_gets_no_great_work(server: Server, path: str, asked: dict[str, Any]) -> None:
    given = {"model": "any", "messages": [{"role": "user", "content": "a"}], **asked}
    watch = Stopwatch()
    status, _, body = server.ask(f"/v1/{path}", json.dumps(given).encode(), {})
    assert status == 400, body[:300]
    assert json.loads(body)["error"]["param"]
    assert watch.took() < 2


# ---------------------------------------------------------------- V17: addresses in a request
def test_no_address_in_a_request_is_asked(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        image = {"type": "image_url", "image_url": {"url": url}}
        chat: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": [image]}]}
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}}
        shared = {"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": url}}
        for path, asked in (
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "response_format": schema}),
            ("/v1/chat/completions", {**chat, "model": url}),
            ("/v1/embeddings", {"model": "any", "input": url}),
            ("/v2/models/any/infer", {"inputs": [shared]}),
            ("/invocations", {"inputs": url}),
        ):
            assert server.ask(path, json.dumps(asked).encode(), {"webhook-url": url})[0] < 501
        listener.settimeout(0.3)
        with pytest.raises(TimeoutError):
            listener.accept()


# ---------------------------------------------------------------- V13: killed
@pytest.mark.slow
def test_after_a_kill_the_next_start_serves(tmp_path: Path) -> None:
    aiaas.save(MLP(3, 2), tmp_path / "models" / "line", example=np.zeros((1, 3), np.float32))
    files = sorted(path.name for path in (tmp_path / "models").rglob("*"))
    body = b'{"inputs": [{"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
    answers = []
    for _ in range(2):
        server = Server(str(tmp_path / "models"))
        answers.append(server.ask("/v2/models/line/infer", body, {}))
        asking = threading.Thread(target=ask_on, args=(server, body))
        asking.start()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGKILL)
        asking.join(20)
        server.close()
    assert [status for status, _, _ in answers] == [200, 200]
    assert answers[0][2] == answers[1][2]
    assert sorted(path.name for path in (tmp_path / "models").rglob("*")) == files


def ask_on(server: Server, body: bytes) -> None:
    try:
        while True:
            server.ask("/v2/models/line/infer", body, {})
    except (OSError, http.client.HTTPException):  # the server has gone
        return
