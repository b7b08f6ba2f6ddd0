"""A server's process under requests that are nearly right: each has its answer, or a no, and nothing grows."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.server import mutants
from tests.server.mutants import HEADER, Request
from tests.server.process import Server
from tests.stopwatch import Stopwatch

SEED, COUNT, WARM, RAW = 20261128, 1_500, 300, 400
PATIENCE = 5.0
GROWN = 8.0
"""MiB that the requests after the first `WARM` may add to the process."""
LEAKS = re.compile(r"Traceback|/[a-z_]+/[a-z_]+/|\.py\b|\bat 0x|Error\b|<class|numpy|pydantic")
"""What no client should read: paths, classes, traces."""


def ask(server: Server, request: Request) -> tuple[int, dict[str, str], bytes]:
    return server.ask(f"/v2/models/{request.model}/infer", request.body, request.all_headers)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(patience=PATIENCE)
    try:
        yield made
    finally:
        made.close()


# ---------------------------------------------------------------- bodies
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_each_of_1500_nearly_right_requests_has_an_answer(server: Server) -> None:
    """V05, V20: 4xx with one sentence that gives nothing away, or 200 with what was sent; the connection lives."""
    for request in mutants.golden():
        assert ask(server, request)[0] == 200
    seen, before = Counter[int](), 0.0
    for number, request in enumerate(mutants.mutated(SEED, COUNT)):
        watch = Stopwatch()
        status, headers, body = ask(server, request)
        assert watch.took() < PATIENCE
        assert (misfit(request, status, headers, body)) == "", (number, request)
        seen[status] += 1
        if number == WARM:
            before = server.resident()
    assert server.resident() - before < GROWN
    assert server.process.poll() is None
    assert ask(server, mutants.golden()[0])[0] == 200
    assert seen[400] > COUNT / 2  # it is the mutants' fault
    assert seen[200] > COUNT / 50  # and some of them are right
    assert set(seen) <= {200, 400, 413, 415}


def misfit(request: Request, status: int, headers: dict[str, str], body: bytes) -> str:
    """What is wrong with an answer; "" where nothing is."""
    if status == 200:
        return wrong(request, headers, body)
    if not 400 <= status < 500:
        return f"status {status}: {body[:300]!r}"
    if headers["content-type"] != "application/json":
        return f"an error's type is {headers['content-type']}"
    document = json.loads(body)
    if list(document) != ["error"] or not isinstance(document["error"], str) or not document["error"]:
        return f"an error has the form {body[:300]!r}"
    told = document["error"]
    return f"the message {told!r}" if LEAKS.search(told) or len(told) > 600 else ""


def wrong(request: Request, headers: dict[str, str], body: bytes) -> str:
    """An echo gives the tensors back that it was sent, as bytes or as numbers."""
    length = int(headers.get(HEADER.lower(), len(body)))
    document, rest = json.loads(body[:length]), body[length:]
    sent = mutants.expected(request)
    for output in document["outputs"]:
        datatype, shape, data = sent[output["name"]]
        size = output.get("parameters", {}).get("binary_data_size")
        came = output["data"] if size is None else rest[:size]
        rest = rest[size or 0 :]
        if output["datatype"] != datatype or (shape and output["shape"] != shape):
            return f"{output['name']} came back as {output['datatype']} {output['shape']}"
        if not same(datatype, data, came):
            return f"{output['name']} came back as {came[:100]!r}"
    return "bytes are left over" if rest else ""


def same(datatype: str, sent: bytes | list[Any], came: bytes | list[Any]) -> bool:
    if type(sent) is type(came) and datatype not in ("FP16", "FP32"):
        return sent == came
    return values(datatype, sent) == values(datatype, came)


def values(datatype: str, data: bytes | list[Any]) -> list[Any]:
    """Numbers and texts that can be compared, of FP32 in its precision; NaN is null in JSON."""
    if datatype == "BYTES":
        return data if isinstance(data, list) else texts(data)
    kind = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}.get(datatype)
    if kind is None:
        name = datatype.lower().replace("bool", "?")
        array = np.frombuffer(data, np.dtype(name)) if isinstance(data, bytes) else np.array(data)
        return array.tolist()  # type: ignore[no-any-return]
    if isinstance(data, bytes):
        array = np.frombuffer(data, kind)
    else:
        array = np.array([np.nan if value is None else value for value in data], float).astype(kind)
    return [value if np.isfinite(value) else None for value in array.tolist()]


def texts(data: bytes) -> list[str]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


# ---------------------------------------------------------------- the wire
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_changed_bytes_of_a_request_end_in_an_answer_or_a_closed_connection(server: Server) -> None:
    """V04, V20: never silence, never a 5xx, and one answer to each request at most."""
    for data in mutants.scrambled(SEED, RAW):
        watch = Stopwatch()
        came = server.send(data)  # a silence of 5 s is a TimeoutError
        assert watch.took() < PATIENCE, data
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", came)]
        assert all(status < 500 or status == 501 for status in statuses), (data, came)
        assert not came or came.startswith(b"HTTP/1.1 "), (data, came)
    assert server.process.poll() is None
    assert ask(server, mutants.golden()[0])[0] == 200


INFER = b"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\n"
REFUSED = [
    b"TRACE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    b"PROPFIND /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"BREW /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v2 HTTP/3.0\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    INFER + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
    INFER + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nx: a\x00b\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nx: a\r\n folded\r\n\r\n",
    INFER + b"Transfer-Encoding: xchunked\r\n\r\nab",
]


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[-24:]))
def test_what_isnt_asked_here_is_refused_or_closed(echo: Any, data: bytes) -> None:
    watch = Stopwatch()
    came = echo.send(data, seconds=1.0)
    assert not came or re.match(rb"HTTP/1\.1 (400|404|405|501) ", came), came
    assert watch.took() < PATIENCE
    assert echo("GET", "/v2").status == 200
