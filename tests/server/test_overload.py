"""V09: more calls than a model can take. Who can't be served is told so at once, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiaas_sdk.server import bodies, connections, running
from aiaas_sdk.server.allowances import Allowance, Limits
from aiaas_sdk.server.errors import RefusedError
from tests.server.lab import PASSES
from tests.server.process import Server
from tests.waiting import until

CALLS, QUEUE = 400, 16
SLOW = 0.5
"""Seconds that the model takes."""
AT_ONCE = 0.25
"""Seconds in which half of the refusals come; 0.1, where nobody else has the processor. On a slower machine three times
as long as so many answers take that cost the server nothing."""
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def infer(seconds: float, name: str = "slow") -> bytes:
    x = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, seconds]}
    body = json.dumps({"inputs": [x]}).encode()
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Caller:
    """A connection, on which one request after the other is asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], float]:
        """The status, the headers, and the seconds from the request's end to the answer's."""
        self._writer.write(request)
        await self._writer.drain()
        begun = time.monotonic()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, time.monotonic() - begun

    def close(self) -> None:
        self._writer.close()


async def caller(port: int) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", port))


@pytest.fixture
def server(lab: str) -> Iterator[Server]:
    made = Server(f"slow={lab}", "other=echo:", queue=QUEUE)
    yield made
    made.close()


async def test_each_of_400_calls_at_once_is_answered_or_told_to_come_again(server: Server) -> None:
    callers = [await caller(server.port) for _ in range(CALLS)]
    other = await caller(server.port)
    assert (await other.ask(infer(0)))[0] == 200
    easy = statistics.median(seconds for _, _, seconds in await asyncio.gather(*(one.ask(LIVE) for one in callers)))
    calls = asyncio.gather(*(one.ask(infer(SLOW)) for one in callers))
    beside = []
    while not calls.done():
        for path in ("/v2/health/ready", "/metrics", "/v2/health/live"):
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            beside.append(await other.ask(request))
        beside.append(await other.ask(infer(0, "other")))
        await asyncio.sleep(0.05)
    answers = calls.result()
    good = [answer for answer in answers if answer[0] == 200]
    refused = [answer for answer in answers if answer[0] == 503]
    assert len(good) + len(refused) == CALLS
    assert len(good) >= QUEUE
    assert len(refused) >= CALLS // 2
    assert all(headers["retry-after"] == "1" for _, headers, _ in refused)
    assert statistics.median(seconds for _, _, seconds in refused) < max(AT_ONCE, 3 * easy)
    assert {status for status, _, _ in beside} == {200}
    assert max(seconds for _, _, seconds in beside) < max(1, 6 * easy)
    # each connection is as good as before
    again = [await one.ask(infer(0)) for one in callers]
    assert {status for status, _, _ in again} == {200}
    for one in (*callers, other):
        one.close()


# ---------------------------------------------------------------- refused before the body has been read
@pytest.fixture(params=["httptools", "h11"])
def client(request: pytest.FixtureRequest, serving: Any, lab: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose model `slow` has one place."""
    kind = connections.protocol_class() if request.param == "httptools" else connections._OnH11
    monkeypatch.setattr(running, "protocol_class", lambda: kind)
    return serving(f"slow={lab}", queue=1)


@contextlib.contextmanager
def busy(client: Any) -> Iterator[None]:
    """While the place is taken; afterwards it is free."""
    with socket.create_connection((client.host, client.port), timeout=10) as stream:
        before = len(PASSES)
        stream.sendall(infer(SLOW))
        until(lambda: len(PASSES) > before)
        yield
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")


@contextlib.contextmanager
def talking(client: Any) -> Iterator[Callable[[bytes], bytes]]:
    """A connection: bytes in, and what comes then."""
    with socket.create_connection((client.host, client.port), timeout=5) as stream:

        def say(data: bytes) -> bytes:
            stream.sendall(data)
            return stream.recv(65536)

        yield say


def test_the_answer_comes_before_the_body_and_the_connection_goes_on(client: Any) -> None:
    request = infer(0)
    with talking(client) as say:
        with busy(client):
            came = say(request[:-5])
            assert came.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in came
            assert b"connection: close" not in came.lower()
        assert say(request[-5:] + request).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["httptools", "h11"])
def test_it_doesnt_go_on_for_ever(kind: str, serving: Any, lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "KEEP_ALIVE", 1)
    if kind == "h11":
        monkeypatch.setattr(running, "protocol_class", lambda: connections._OnH11)
    client, request = serving(f"slow={lab}", queue=1), infer(0)
    with talking(client) as say:
        with busy(client):
            assert say(request[:-5]).startswith(b"HTTP/1.1 503 ")
        assert say(request[-5:]) == b""  # the talker waits 5 seconds


@pytest.mark.parametrize(
    "lines",
    [b"Content-Length: 2000000", b"Transfer-Encoding: chunked", b"Content-Length: 20\r\nExpect: 100-continue"],
    ids=["large", "endless", "waiting"],
)
def test_where_the_rest_costs_more_than_a_connection_it_ends(
    client: Any, lines: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_DRAINED", 0.2)
    with busy(client), socket.create_connection((client.host, client.port), timeout=5) as stream:
        stream.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n\r\n")
        came = stream.recv(65536)
        assert came.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in came.lower()
        while stream.recv(65536):
            pass


def test_a_body_on_its_way_takes_no_place(client: Any) -> None:
    request = infer(0)
    with socket.create_connection((client.host, client.port), timeout=5) as stream:
        stream.sendall(request[:-5])
        time.sleep(0.1)
        with talking(client) as say:
            assert say(request).startswith(b"HTTP/1.1 200 ")
        with busy(client):  # it finds no place when it is there
            stream.sendall(request[-5:])
            assert stream.recv(65536).startswith(b"HTTP/1.1 503 ")
        stream.sendall(request)
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["/v2/models/slow/infer", "/v1/models/slow:predict", "/v1/models/slow:explain", "/invocations"]
    + [f"/v2/models/slow/{verb}" for verb in ("explain", "generate", "generate_stream")],
)
def test_no_protocol_reads_what_it_cant_answer(client: Any, path: str) -> None:
    with busy(client):
        answer = client("POST", path, b"this is no JSON")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
    assert client("POST", path, b"this is no JSON").status == 400


@contextlib.contextmanager
def speaking(client: Any, *models: str) -> Iterator[None]:
    """While each of the models, which have one place, is streaming to somebody."""
    with contextlib.ExitStack() as stack:
        for model in models:
            asked = {"model": model, "messages": [{"role": "user", "content": "forever"}], "stream": True}
            body = json.dumps(asked).encode()
            stream = stack.enter_context(socket.create_connection((client.host, client.port), timeout=10))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.sendall(head.encode() + body)
            assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")
        yield


def begun(client: Any, path: str, length: int) -> bytes:
    """What comes where a request has sent its head, and none of its body."""
    with socket.create_connection((client.host, client.port), timeout=1) as stream:
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        try:
            return stream.recv(65536)
        except TimeoutError:
            return b""


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_openais_api_reads_no_body_where_no_model_could_answer(path: str, serving: Any, talker: str, lab: str) -> None:
    client = serving(f"talker={talker}", f"numbers={lab}", f"second={talker}", queue=1)
    with speaking(client, "talker", "second"):
        came = begun(client, path, 1000)
        assert came.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in came
        assert b'"type":"service_unavailable"' in came
        assert b"every model that could answer is overloaded" in came
        assert b"connection: close" not in came.lower()
        assert b"connection: close" in begun(client, path, 100_000_000).lower()
    end = time.monotonic() + 10
    while (came := begun(client, path, 1000)) and time.monotonic() < end:  # until both have noticed that nobody listens
        pass
    assert came == b""  # there is room, and it waits for the body


def test_openais_api_reads_on_where_another_model_may_be_meant(serving: Any, talker: str) -> None:
    client = serving(f"talker={talker}", "echo=echo:", queue=1)
    messages = [{"role": "user", "content": "hello"}]
    with speaking(client, "talker"):
        said = client("POST", "/v1/chat/completions", {"model": "echo", "messages": messages})
        assert said.status == 200
        said = client("POST", "/v1/chat/completions", {"model": "talker", "messages": messages})
        assert (said.status, said.headers["retry-after"]) == (503, "1")
        assert "'talker' is overloaded" in said.document["error"]["message"]
        assert client("POST", "/v1/embeddings", {"model": "echo", "input": "x"}).status == 200


def test_a_callers_share_is_looked_at_before_his_body_is() -> None:
    allowance = Allowance(Limits(queue_share=0.5))
    with allowance.place("m", 4):
        allowance.check_place("m", 4)
        with allowance.place("m", 4):
            with pytest.raises(RefusedError) as caught:
                allowance.check_place("m", 4)
            allowance.check_place("other", 4)
    assert (caught.value.status, caught.value.retry_after) == (429, 1)
    allowance.check_place("m", 4)
