"""Mixed load on a server, of which parts stall, reset and leave (V22): all others are served, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.soak.clients import HEADER, Load, Stream, chat, post
from tests.soak.served import QUEUE

CLIENTS = 24
CACHED, ASKED = 300, 1200
"""Objects of a type that the server's caches may come to hold (each remembers 256 at most), and the requests for it."""
WARM, SECONDS = 6.0, 14.0
GROWN, BLOCKS = 4.0, 4_000
"""MiB and Python's memory blocks that may come in the `SECONDS` after the warm-up; each call that left a block behind
would be three times as many."""
LEFT = 20
"""Objects of one type that may come in them, fewer than there are calls of each kind: a further thread of a model has
up to seven of a type."""


class Served:
    """The process of `served.py`."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("served.py"), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.port = int(self._answer().rpartition(":")[2])

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server ended early (status {self._process.wait(5)})"
        return line.strip()

    def held(self) -> dict[str, Any]:
        return self._ask("")

    def kinds(self) -> Counter[str]:
        """How many objects there are of each type."""
        return Counter(self._ask("kinds"))

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._answer())
        return found

    def settled(self, before: dict[str, Any], seconds: float = 5.0) -> dict[str, Any]:
        """What is held once files and tasks are as few as before, or after so long."""
        end = time.monotonic() + seconds
        while True:
            found = self.held()
            if all(found[name] <= before[name] for name in ("files", "tasks")) or time.monotonic() > end:
                return found
            time.sleep(0.2)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


async def full(port: int) -> list[bytes]:
    """The answers to as many calls at once as the model has places."""

    async def one() -> bytes:
        stream = await Stream.to(port)
        try:
            await stream.send(chat("wait:0.05 a"))
            return await stream.answer()
        finally:
            stream.close()

    return await asyncio.gather(*(one() for _ in range(QUEUE)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_nothing_is_left_of_clients_that_stall_reset_and_leave(served: Served) -> None:
    load = Load(served.port)
    asyncio.run(load.run(1, 0.5))
    idle = served.settled(served.held(), 0.5)
    asyncio.run(load.run(CLIENTS, WARM))
    warm, kinds = served.settled(idle), served.kinds()
    asyncio.run(load.run(CLIENTS, SECONDS))
    after = served.settled(idle)
    left = {kind: count for kind, count in (served.kinds() - kinds).items() if count > LEFT}
    assert load.wrong == []
    assert load.ends["ask"] > 1_000
    assert min(load.ends[kind] for kind in ("stall", "reset", "cancel")) > LEFT
    assert after["files"] <= idle["files"] + 1
    assert after["tasks"] <= idle["tasks"]
    assert after["threads"] <= warm["threads"] + 1
    assert left == {}
    assert after["memory"] - warm["memory"] < GROWN
    assert after["blocks"] - warm["blocks"] < BLOCKS
    answers = asyncio.run(full(served.port))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}  # every place is free again


def made_up(n: int) -> list[bytes]:
    """Requests in which all that a client may choose is new."""
    given = {"name": f"x{n}", "shape": [n + 1], "datatype": "UINT8", "parameters": {"binary_data_size": n + 1}}
    told = {"id": f"id{n}", "inputs": [given], "parameters": {"binary_data_output": True, f"p{n}": n}}
    head = json.dumps(told).encode()
    tool = {"type": "function", "function": {"name": f"t{n}", "parameters": {"type": "object"}}}
    said = {"model": "talk", "messages": [{"role": "user", "content": f"a{n}"}], "user": f"u{n}", "tools": [tool]}
    lines = [f"{HEADER}: {len(head)}", f"Accept: a/b{n}", f"Content-Type: a/b{n}", f"X-Any{n}: v{n}"]
    own = [f"X-Request-Id: r{n}", f"Authorization: Bearer k{n}", f"Traceparent: 00-{n + 1:032x}-{n + 1:016x}-01"]
    return [
        post("/v2/models/echo/infer", head + bytes(n + 1), *lines),
        post("/v2/models/echo/infer", head + bytes(n + 1), lines[0], *own),
        post("/v1/chat/completions", json.dumps(said).encode()),
        post("/v1/chat/completions", json.dumps({**said, "model": f"m{n}"}).encode()),
        post(f"/v2/models/echo/versions/{n}/infer", head + bytes(n + 1), lines[0]),
        post(f"/v2/models/m{n}/infer", head + bytes(n + 1), lines[0]),
        post(f"/no/{n}?q={n}", b""),
    ]


async def asked(port: int, numbers: range) -> Counter[bytes]:
    """The statuses of these requests, one after the other."""
    stream = await Stream.to(port)
    found: Counter[bytes] = Counter()
    for n in numbers:
        for request in made_up(n):
            await stream.send(request)
            found[(await stream.answer())[9:12]] += 1
    stream.close()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_nothing_is_kept_for_each_name_id_key_or_path_that_clients_make_up(served: Served) -> None:
    asyncio.run(asked(served.port, range(CACHED)))
    before = served.kinds()
    statuses = asyncio.run(asked(served.port, range(CACHED, CACHED + ASKED)))
    kept = {kind: count for kind, count in (served.kinds() - before).items() if count > CACHED}
    assert statuses == {b"200": 3 * ASKED, b"404": 4 * ASKED}
    assert kept == {}
