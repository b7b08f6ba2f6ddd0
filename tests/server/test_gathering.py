"""Writes of one turn leave as one, and none gets lost."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from typing import Any

from aiaas_sdk.server import gathering
from aiaas_sdk.server.gathering import Gathering


def over_a_socket(writes: Any) -> list[bytes]:
    """What the other side reads, piece by piece, of what `writes` does with a connection."""

    async def run() -> list[bytes]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        theirs.setblocking(False)
        with theirs:
            await writes(Gathering(transport, loop))
            pieces = []
            while piece := await asyncio.wait_for(loop.sock_recv(theirs, 1 << 22), 5):
                pieces.append(piece)
            return pieces

    return asyncio.run(run())


def test_what_is_written_in_one_turn_leaves_as_one() -> None:
    async def writes(connection: Gathering) -> None:
        connection.write(b"head ")
        connection.write(memoryview(b"body"))
        await asyncio.sleep(0.05)
        connection.write(b"next")
        connection.close()

    assert b"".join(over_a_socket(writes)) == b"head bodynext"

    async def one(connection: Gathering) -> None:
        connection.write(b"head ")
        connection.write(b"body")
        connection.close()

    assert over_a_socket(one) == [b"head body"]


def test_large_writes_keep_their_order_and_the_transport_says_when_it_is_full() -> None:
    large = bytes(range(256)) * 4096

    async def writes(connection: Gathering) -> None:
        connection.write(b"small")
        connection.write(large)
        connection.write(b"end")
        assert connection._transport.get_write_buffer_size() > 0  # it has them, and pauses whoever writes
        connection.close()

    assert b"".join(over_a_socket(writes)) == b"small" + large + b"end"


def test_an_abort_forgets_what_is_held() -> None:
    async def writes(connection: Gathering) -> None:
        connection.write(b"never")
        connection.abort()
        await asyncio.sleep(0.01)
        connection.write(b"nor this")
        assert connection.is_closing()

    assert over_a_socket(writes) == []


def test_a_small_answer_comes_in_one_piece(echo: Any) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    body = json.dumps({"inputs": [x], "parameters": {"binary_data_output": True}}).encode()
    head = f"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((echo.host, echo.port), timeout=10) as stream:
        stream.sendall(head.encode() + body)
        came = stream.recv(1 << 16)
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert came.endswith(b"\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40")


def test_one_connection_that_cant_be_written_to_keeps_no_other_one_back() -> None:
    class Broken(asyncio.Transport):
        def write(self, data: Any) -> None:
            raise RuntimeError("it is broken")

        def is_closing(self) -> bool:
            return False

    told: list[Any] = []

    async def writes(connection: Gathering) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, about: told.append(about["exception"]))
        Gathering(Broken(), loop).write(b"lost")
        connection.write(b"kept")
        await asyncio.sleep(0.05)
        connection.close()

    assert over_a_socket(writes) == [b"kept"]
    assert [str(error) for error in told] == ["it is broken"]


def test_loops_that_have_ended_are_forgotten() -> None:
    before = len(gathering._turns)
    for _ in range(3):

        async def writes(connection: Gathering) -> None:
            connection.write(b"x")
            connection.close()

        over_a_socket(writes)
    gc.collect()
    assert len(gathering._turns) <= before
