"""Requests in pieces, one behind another, on several connections: each gets its own answer, whether a queue is full or
not, and whether its head is remembered or not."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from aiaas_sdk.server import bodies, overflow
from tests.server.test_overflow import busy

UPGRADE = "Connection: Upgrade\r\nUpgrade: h2c"
ROUNDS, CONNECTIONS = 24, 4


class Asked(NamedTuple):
    """A request.

    Attributes:
        data: its bytes.
        fits: whether this status and body are its answer.
        head: it is a HEAD, whose answer has no body.
        last: the server ends the connection behind its answer.
    """

    data: bytes
    fits: Callable[[int, bytes], bool]
    head: bool = False
    last: bool = False


class Maker:
    """Makes requests of every kind, each with a number of its own."""

    def __init__(self, chance: random.Random, full: bool) -> None:
        self._chance, self._full, self._number = chance, full, 100_000

    def next(self) -> Asked:
        kinds = (self._slow, self._slow, self._slow, self._other, self._large, self._nobody, self._get, self._chunked)
        return self._chance.choice(kinds)()

    def ending(self) -> Asked:
        return self._chance.choice((self._closing, self._old, self._too_long))()

    # ------------------------------------------------------------ kinds
    def _slow(self) -> Asked:
        number = self._identity()
        data = self._infer("slow", [number, 0])
        return Asked(data, self._refused if self._full else lambda status, body: _y(status, body) == [2 * number, 0])

    def _other(self) -> Asked:
        return self._echo([self._identity()])

    def _large(self) -> Asked:
        size = self._chance.choice((900, 3000, 20_000))
        return self._echo([self._identity()] * size)

    def _echo(self, numbers: list[int]) -> Asked:
        return Asked(self._infer("other", numbers), self._echoed(numbers))

    def _nobody(self) -> Asked:
        name = f"nobody{self._identity()}"
        return Asked(self._infer(name, [1] * self._chance.choice((1, 5000))), lambda *told: _is(404, name, *told))

    def _get(self) -> Asked:
        name = f"nobody{self._identity()}"
        method = self._chance.choice(("GET", "HEAD", "OPTIONS", "DELETE"))
        data = f"{method} /v2/models/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        if method == "HEAD":
            return Asked(data, lambda status, body: status == 404 and not body, head=True)
        if method == "GET":
            return Asked(data, lambda *told: _is(404, name, *told))
        return Asked(data, lambda status, body: status == 405)

    def _chunked(self) -> Asked:
        numbers = [self._identity()] * self._chance.choice((1, 3000))
        name = f"nobody{numbers[0]}" if self._full else "other"  # which ends the connection where it refuses this one
        head, body = re.split(rb"(?<=.)\r\n\r\n", self._infer(name, numbers), maxsplit=1)
        lines = [line for line in head.split(b"\r\n") if not line.startswith((b"Content-Length", b"Upgrade"))]
        pieces = [body[at : at + 7000] for at in range(0, len(body), 7000)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        data = b"\r\n".join((*lines, b"Transfer-Encoding: chunked")) + b"\r\n\r\n" + chunks + b"0\r\n\r\n"
        return Asked(data, (lambda *told: _is(404, name, *told)) if self._full else self._echoed(numbers))

    # ------------------------------------------------------------ those that end the connection
    def _closing(self) -> Asked:
        number = self._identity()
        line = self._chance.choice(("Connection: close", "Connection: close\r\nConnection: keep-alive"))
        data = self._infer("slow", [number, 0], line)
        fits = self._refused if self._full else lambda status, body: _y(status, body) == [2 * number, 0]
        return Asked(data, fits, last=True)

    def _old(self) -> Asked:
        numbers = [self._identity()]
        data = self._infer("other", numbers).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        return Asked(data, self._echoed(numbers), last=True)

    def _too_long(self) -> Asked:
        data = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1234567890123456789\r\n\r\n"
        return Asked(data, self._refused if self._full else lambda *told: _is(400, "no length", *told), last=True)

    # ------------------------------------------------------------ parts
    def _identity(self) -> int:
        self._number += 1
        return self._number

    def _infer(self, name: str, numbers: list[int], *more: str) -> bytes:
        shape = [1, 2] if name == "slow" else [1, len(numbers)]
        body = json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": numbers}]}).encode()
        lines = [f"POST /v2/models/{name}/infer HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *more]
        if not more and self._chance.random() < 0.2:
            lines.insert(
                2,
                self._chance.choice(("X-Request-Id: a", "Connection: keep-alive", "Origin: http://localhost", UPGRADE)),
            )
        before = self._chance.choice((b"", b"", b"", b"\r\n", b"\r\n\r\n"))
        return before + "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _refused(self, status: int, body: bytes) -> bool:
        return _is(503, "'slow' is overloaded", status, body)

    def _echoed(self, numbers: list[int]) -> Callable[[int, bytes], bool]:
        """That is the answer; the model's one place may be another connection's for a moment, in which it is full."""
        return lambda *told: (self._full and _is(503, "'other' is overloaded", *told)) or _y(*told) == numbers


def _is(wanted: int, word: str, status: int, body: bytes) -> bool:
    return bool(status == wanted and word in json.loads(body)["error"])


def _y(status: int, body: bytes) -> Any:
    """The numbers of an answer."""
    return np.ravel(json.loads(body)["outputs"][0]["data"]).tolist() if status == 200 else None


def pieces(requests: list[bytes], chance: random.Random) -> list[bytes]:
    """Cut, most often where one ends, about the end of a head, or anywhere."""
    cuts, end = {0}, 0
    for data in requests:
        begun, end = end, end + len(data)
        if chance.random() < 0.7:
            cuts.add(end)
        if chance.random() < 0.3:
            cuts.add(begun + data.rindex(b"\r\n\r\n") + chance.randint(0, 6))
        if chance.random() < 0.3:
            cuts |= {chance.randint(begun, end) for _ in range(3)}
    whole, places = b"".join(requests), sorted({*cuts, end})
    return [whole[at:to] for at, to in itertools.pairwise(places)]


class Line:
    """A connection with requests that are still to be sent, and their answers."""

    def __init__(self, client: Any, asked: list[Asked], chance: random.Random) -> None:
        self.asked, self._came = asked, b""
        self._pieces = pieces([one.data for one in asked if not one.last], chance)
        self._pieces += [one.data for one in asked if one.last]  # whole: who is refused before he said all loses it
        self._stream = socket.create_connection((client.host, client.port), timeout=10)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_some(self) -> bool:
        """The next piece; whether there is more."""
        self._stream.sendall(self._pieces.pop(0))
        return bool(self._pieces)

    def check(self) -> None:
        """Every answer, in order, and nothing behind the last."""
        for place, one in enumerate(self.asked):
            status, body = self._answer(one.head)
            assert one.fits(status, body), (place, one.data[:200], status, body[:200])
        if self.asked[-1].last:
            assert self._came + self._stream.recv(1) == b""
        else:
            self._stream.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert self._answer(False)[0] == 200
            assert self._came == b""

    def close(self) -> None:
        self._stream.close()

    def _answer(self, headless: bool) -> tuple[int, bytes]:
        while b"\r\n\r\n" not in self._came:
            self._came += self._read()
        head, _, rest = self._came.partition(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        size = 0 if headless else size
        while len(rest) < size:
            rest += self._read()
        self._came = rest[size:]
        return int(head[9:12]), rest[:size]

    def _read(self) -> bytes:
        piece = self._stream.recv(1 << 20)
        assert piece, "the connection ended"
        return piece


def talked(client: Any, chance: random.Random, maker: Maker, connections: int) -> None:
    """Some connections at the same time, and what each is told."""
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(connections):
            asked = [maker.next() for _ in range(chance.randint(1, 8))]
            if chance.random() < 0.3:
                asked.append(maker.ending())
            lines.append(stack.enter_context(contextlib.closing(Line(client, asked, chance))))
        sending = list(lines)
        while sending:
            line = chance.choice(sending)
            if not line.send_some():
                sending.remove(line)
            time.sleep(chance.choice((0, 0.0005, 0.002)))
        for line in lines:
            line.check()


@pytest.mark.parametrize("seed", range(2))
def test_each_gets_its_own_answer(serving: Any, lab: str, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(overflow, "_SPAN", 30.0)
    monkeypatch.setattr(bodies, "_DRAINED", 0.02)  # of a body that never comes
    chance, early = random.Random(seed), [0]
    count = overflow.Overflow.count

    def counted(self: overflow.Overflow, refused: overflow.Refused) -> None:
        early[0] += 1
        count(self, refused)

    monkeypatch.setattr(overflow.Overflow, "count", counted)
    client = serving(f"slow={lab}", "other=echo:", queue=1)
    maker = Maker(chance, full=True)
    for _ in range(3):  # the place is kept for some seconds only
        with busy(client):
            for _ in range(ROUNDS // 3):
                talked(client, chance, maker, CONNECTIONS)
    assert early[0] > 20
    maker = Maker(chance, full=False)
    for _ in range(ROUNDS):
        talked(client, chance, maker, 1)  # of several, one would take the place from another
