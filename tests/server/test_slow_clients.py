"""V01: hundreds of clients that hardly send anything, all at once. They are cut off, and the others don't notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.server.process import Server

HEADS, SILENT, BODIES = 200, 50, 50
HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0
"""In which those must be gone."""
MARGIN = 3.0  # seconds for a loaded machine
BODY = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
POST = b"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


async def lines() -> AsyncIterator[bytes]:
    yield b"GET /v2/health/live HTTP/1.1\r\n"
    for number in range(60):
        await asyncio.sleep(1)
        yield b"x-%d: y\r\n" % number


async def silence() -> AsyncIterator[bytes]:
    for _ in range(60):
        await asyncio.sleep(1)
        yield b""


async def bytes_of_a_body() -> AsyncIterator[bytes]:
    yield POST % 1000 + b"\r\n"
    for _ in range(60):
        await asyncio.sleep(1)
        yield b" "


async def until_closed(port: int, said: AsyncIterator[bytes]) -> float:
    """Seconds for which the server bears with a client that says this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()
    gone = asyncio.ensure_future(reader.read())
    try:
        async for piece in said:
            if gone.done():
                break
            if piece:
                writer.write(piece)
        await asyncio.wait([gone])
    except OSError:  # it was closed while we wrote
        pass
    finally:
        writer.transport.abort()
    if not gone.cancelled() and gone.exception() is None:
        assert b" 200 " not in gone.result()
    return time.monotonic() - begun


async def served(port: int, slow: asyncio.Future[list[list[float]]]) -> list[float]:
    """Seconds for which each of the others waits, on a connection of his own, while the slow ones are there."""
    found = []
    while not slow.done():
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST % len(BODY) + b"Connection: close\r\n\r\n" + BODY)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        found.append(time.monotonic() - begun)
        await asyncio.sleep(0.2)
    return found


@pytest.mark.slow
async def test_hundreds_of_slow_clients_are_cut_off_and_keep_nobody_waiting(server: Server) -> None:
    groups = ((HEADS, lines), (SILENT, silence), (BODIES, bytes_of_a_body))
    slow = asyncio.gather(
        *(asyncio.gather(*(until_closed(server.port, said()) for _ in range(count))) for count, said in groups)
    )
    others = await served(server.port, slow)
    heads, silent, bodies = slow.result()
    assert max(heads) < HEAD_SECONDS + MARGIN
    assert max(silent) < HEAD_SECONDS + MARGIN
    assert max(bodies) < BODY_SECONDS + MARGIN
    assert min(heads + silent) > 5  # a client on a poor line has some seconds
    assert min(bodies) > 20
    assert len(others) > 50
    assert max(others) < 2
