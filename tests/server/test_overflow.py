"""Whoever is refused because a queue is full, and asks the same again, is told the same, as long as it is full."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aiaas_sdk.server import connections, overflow
from aiaas_sdk.server.connections_httptools import OnHttptools
from aiaas_sdk.server.keys import made, write_keys
from tests.server.lab import GATE, PASSES
from tests.waiting import until

WAITING = -10
"""The mood of a row that keeps the one place, until the test lets it go."""
ROWS = 9000
"""Of a request that no read takes whole while a head is waited for."""


def infer(seconds: float = 0, rows: int = 1, name: str = "slow", *lines: str) -> bytes:
    x = {"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": [1, seconds] * rows}
    body = json.dumps({"inputs": [x]}).encode()
    head = (f"POST /v2/models/{name}/infer HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines)
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each refusal that was given before anything was made of the request. Heads are remembered for long."""
    monkeypatch.setattr(overflow, "_SPAN", 30.0)
    found: list[str] = []
    count = overflow.Overflow.count

    def counted(self: overflow.Overflow, refused: overflow.Refused) -> None:
        found.append(refused.model)
        count(self, refused)

    monkeypatch.setattr(overflow.Overflow, "count", counted)
    return found


class Talk:
    """A connection: bytes in, and the answers that come."""

    def __init__(self, client: Any) -> None:
        self.stream = socket.create_connection((client.host, client.port), timeout=10)
        self._came = b""

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.stream.sendall(piece)
            time.sleep(0.002 if len(pieces) > 1 else 0)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._came:
            self._came += self._read()
        head, _, rest = self._came.partition(b"\r\n\r\n")
        lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
        headers = {name.lower(): value for name, _, value in lines}
        while len(rest) < int(headers["content-length"]):
            rest += self._read()
        self._came = rest[int(headers["content-length"]) :]
        return int(head[9:12]), headers, rest[: int(headers["content-length"])]

    def _read(self) -> bytes:
        piece = self.stream.recv(65536)
        assert piece, "the connection ended"
        return piece

    def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        self.say(*pieces)
        return self.answer()


@contextlib.contextmanager
def busy(client: Any, headers: str = "") -> Iterator[None]:
    """While the place is taken; it is free afterwards."""
    before = len(PASSES)
    GATE.clear()
    with Talk(client) as talk:
        talk.say(infer(WAITING, 1, "slow", *([headers] if headers else [])))
        until(lambda: len(PASSES) > before)
        try:
            yield
        finally:
            GATE.set()
        assert talk.answer()[0] == 200


@pytest.fixture
def client(serving: Any, lab: str) -> Any:
    """A server whose model `slow` has one place."""
    return serving(f"slow={lab}", "other=echo:", queue=1)


def test_each_is_told_the_same_and_is_served_when_there_is_room(client: Any, early: list[str]) -> None:
    request = infer()
    with Talk(client) as talk:
        with busy(client):
            answers = [talk.ask(request) for _ in range(6)]
            assert early == ["slow"] * 4  # the first was refused by the queue, the second showed its head
            with Talk(client) as new:
                answers.append(new.ask(request))
            assert len(early) == 5
        first = {name: value for name, value in answers[0][1].items() if name != "date"}
        for status, headers, body in answers:
            assert status == 503
            assert {name: value for name, value in headers.items() if name != "date"} == first
            assert "date" in headers
            assert json.loads(body) == {"error": "model 'slow' is overloaded; try again later"}
        assert talk.ask(request)[0] == 200
        assert len(early) == 5


@pytest.mark.parametrize("piece", [40, 1000, 70_000, 10_000_000])
def test_however_it_comes_the_connection_goes_on(client: Any, early: list[str], piece: int) -> None:
    request = infer(rows=ROWS if piece > 100 else 5)
    pieces = [request[at : at + piece] for at in range(0, len(request), piece)]
    with Talk(client) as talk:
        with busy(client):
            for _ in range(5):
                assert talk.ask(*pieces)[0] == 503
            if piece > 100:  # a head in pieces is read as any other
                assert early
        for _ in range(2):
            assert talk.ask(*pieces)[0] == 200


def test_one_behind_the_other(client: Any, early: list[str]) -> None:
    request, more = infer(), infer(rows=ROWS)
    with Talk(client) as talk:
        with busy(client):
            for _ in range(3):
                assert talk.ask(request)[0] == 503
                assert talk.ask(more)[0] == 503
            assert early
            talk.say(request * 3 + more * 2 + request)
            assert [talk.answer()[0] for _ in range(6)] == [503] * 6
        talk.say(request + more + request)
        assert [talk.answer()[0] for _ in range(3)] == [200] * 3


def test_the_answer_comes_before_the_body_and_the_next_request_may_be_served(client: Any, early: list[str]) -> None:
    request = infer(rows=ROWS)
    with Talk(client) as talk:
        with busy(client):
            for _ in range(3):
                talk.ask(request)
            early.clear()
            assert talk.ask(request[:300])[0] == 503
            assert early == ["slow"]
        talk.say(request[300:], request)
        assert talk.answer()[0] == 200


def test_meanwhile_others_are_served(client: Any, early: list[str]) -> None:
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            assert talk.ask(infer())[0] == 503
        for rows in (1, ROWS):
            assert talk.ask(infer(name="other", rows=rows))[0] == 200
        assert talk.ask(infer()[:-3] + b"   ")[0] == 503  # of the body nobody has read anything
        assert talk.ask(infer(name="nobody"))[0] == 404


def test_each_is_counted_and_logged(serving: Any, lab: str, early: list[str], caplog: Any) -> None:
    client = serving(f"slow={lab}", queue=1, access_log=True)
    with caplog.at_level(logging.INFO, "aiaas_sdk.server.access"), Talk(client) as talk:
        with busy(client):
            for _ in range(7):
                talk.ask(infer())
        assert len(early) == 5
        told = client("GET", "/metrics").body.decode()
    (line,) = [line for line in told.splitlines() if line.startswith("aiaas_requests_total{") and 'code="503"' in line]
    assert line.endswith(" 7.0")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    refused = [{**line, "time": "", "seconds": 0, "request_id": ""} for line in lines if line["status"] == 503]
    assert len(refused) == 7
    assert all(line == refused[0] for line in refused)
    assert refused[0]["path"] == "/v2/models/{model}/infer"
    assert client("GET", "/v2").status == 200


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer x",
        "X-Request-Id: 1",
        "Connection: close",
        "Connection: close\r\nConnection: keep-alive",
        "traceparent: 00-1-2-01",
        "X: " + "y" * 5000,
    ],
)
def test_what_is_each_requests_own_is_not_remembered(client: Any, early: list[str], line: str) -> None:
    request = infer(0, 1, "slow", line)
    with busy(client):
        for _ in range(4):
            with Talk(client) as talk:
                assert talk.ask(request)[0] == 503
    assert early == []


def test_who_has_to_show_a_key_is_asked_for_it_each_time(
    serving: Any, lab: str, early: list[str], tmp_path: Any
) -> None:
    key, entry = made("somebody")
    write_keys(tmp_path / "keys.toml", [entry])
    client = serving(f"slow={lab}", queue=1, api_keys=tmp_path / "keys.toml")
    with busy(client, f"X-Api-Key: {key}"), Talk(client) as talk:
        for _ in range(4):
            assert talk.ask(infer(0, 1, "slow", f"X-Api-Key: {key}"))[0] == 503
            assert talk.ask(infer())[0] == 401
    assert early == []


def test_a_head_is_forgotten_after_a_while(client: Any, early: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "_SPAN", 0.2)
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            for _ in range(2):
                assert talk.ask(infer())[0] == 503
            time.sleep(0.4)
        assert early == []
        for _ in range(100):
            assert talk.ask(infer())[0] == 503
        assert early


def test_empty_lines_before_a_request_are_no_head(client: Any, early: list[str]) -> None:
    with Talk(client) as talk, Talk(client) as other, busy(client):
        for _ in range(3):
            assert talk.ask(infer())[0] == 503
            assert talk.ask(b"\r\n\r\n" + infer())[0] == 503
        other.say(b"\r\n\r\n", infer(name="other"))
        assert other.answer()[0] == 200


def test_heads_have_their_limits_then_too(client: Any, early: list[str]) -> None:
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            assert talk.ask(infer())[0] == 503
        for told, status in ((b"/v2?x=" + b"a" * 50_000, 414), (b"/v2 HTTP/1.1\r\nX: " + b"a" * 100_000, 431)):
            with Talk(client) as other:
                assert other.ask(b"GET " + told + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == status


def test_who_takes_no_answers_is_given_no_more(client: Any, early: list[str]) -> None:
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            assert talk.ask(infer())[0] == 503
        (connection,) = [one for one in _connections() if one.client == talk.stream.getsockname()]
        early.clear()
        connection.loop.call_soon_threadsafe(connection.pause_writing)  # as its transport does, if it has too much
        until(lambda: connection.flow.write_paused)
        for _ in range(3):
            talk.say(infer())
            time.sleep(0.05)
        talk.stream.settimeout(0.3)
        with pytest.raises(TimeoutError):
            talk.answer()
        connection.loop.call_soon_threadsafe(connection.resume_writing)
        talk.stream.settimeout(10)
        assert [talk.answer()[0] for _ in range(3)] == [503] * 3
        assert early == []
        assert talk.ask(infer())[0] == 503
        assert early == ["slow"]


def _connections() -> list[Any]:
    return [one for one in gc.get_objects() if type(one) is OnHttptools]


def test_who_ends_the_connection_may_send_all_before_he_is_answered(client: Any) -> None:
    """As Python's own urllib does."""
    request = infer(0, ROWS, "slow", "Connection: close")
    with busy(client):
        for _ in range(5):
            with Talk(client) as talk:
                talk.say(request[:1000], request[1000:50_000], request[50_000:])
                assert talk.answer()[0] == 503


def test_a_server_about_to_end_says_so_to_each(client: Any, early: list[str]) -> None:
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            assert "connection" not in talk.ask(infer())[1]
        assert early == ["slow"]
        _connections()[0].config.app.draining = True
        assert talk.ask(infer())[1]["connection"] == "close"
        assert early == ["slow"]


def test_whose_body_doesnt_come_is_cut_off(client: Any, early: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.5)
    with Talk(client) as talk, busy(client):
        for _ in range(3):
            assert talk.ask(infer(rows=ROWS))[0] == 503
        assert talk.ask(infer(rows=ROWS)[:300])[0] == 503
        assert len(early) == 2
        with pytest.raises((AssertionError, ConnectionError)):
            talk.answer()
