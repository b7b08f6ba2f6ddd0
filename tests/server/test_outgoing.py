"""What leaves is what uvicorn would send, byte by byte."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

pytest.importorskip("httptools")

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from aiaas_sdk.server.outgoing import Outgoing

DATE = [(b"date", b"Sun, 29 Nov 2026 12:00:00 GMT")]
JSON = (b"content-type", b"application/json")


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.came, self.writes, self.closed = b"", 0, False

    def write(self, data: Any) -> None:
        self.came += bytes(data)
        self.writes += 1

    def close(self) -> None:
        self.closed = True


def start(*lines: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(lines)}


def body(data: Any, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", str(size).encode())


def made(kind: type[RequestResponseCycle], wire: Wire, method: str, keep_alive: bool, ended: list[int]) -> Any:
    return kind(
        scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
        transport=wire,
        flow=FlowControl(wire),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=DATE,
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: ended.append(1),
    )


def sent(
    kind: type[RequestResponseCycle], messages: list[dict[str, Any]], method: str, keep_alive: bool
) -> tuple[Any, ...]:
    """What is on the wire, whether it was closed and the answer ended, and what was raised."""
    ended: list[int] = []

    async def run() -> tuple[Any, ...]:
        wire = Wire()
        cycle = made(kind, wire, method, keep_alive, ended)
        said = ""
        for message in messages:
            try:
                await cycle.send(dict(message))
            except RuntimeError as error:
                said = str(error)
                break
        return wire.came, wire.closed, len(ended), cycle.response_complete, said

    first = asyncio.run(run())
    assert asyncio.run(run())[0] == first[0], "the same again"
    return first


ANSWERS = {
    "whole": [start(JSON, length(2)), body(b"{}")],
    "empty": [start(JSON, length(0), status=404), body(b"")],
    "without a body": [start(JSON, length(2), status=503), {"type": "http.response.body"}],
    "a view": [start((b"X-Other", b"a, b"), length(4)), body(memoryview(b"abcd"))],
    "in capitals": [start((b"Content-Length", b"3")), body(b"abc")],
    "in parts": [start(length(6)), body(b"abc", more=True), body(b"def")],
    "large": [start(length(200_000)), body(bytes(200_000))],
    "a stream": [start(JSON), body(b"ab", more=True), body(b"c", more=True), body(b"")],
    "no content": [start(status=204), body(b"")],
    "the last": [start((b"connection", b"close"), length(1)), body(b"x")],
    "chunked": [start((b"transfer-encoding", b"chunked")), body(b"x")],
    "too long": [start(length(3)), body(b"abcd")],
    "too short": [start(length(3)), body(b"ab")],
    "more than all": [start(length(2)), body(b"ab"), body(b"c")],
    "a wrong name": [start((b"x y", b"1"), length(1)), body(b"x")],
    "a wrong value": [start((b"x", b"1\n2"), length(1)), body(b"x")],
    "without a head": [body(b"x")],
}


@pytest.mark.parametrize("keep_alive", [True, False], ids=["goes on", "ends"])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("messages", ANSWERS.values(), ids=ANSWERS)
def test_it_is_what_uvicorn_sends(messages: list[dict[str, Any]], method: str, keep_alive: bool) -> None:
    wanted = sent(RequestResponseCycle, messages, method, keep_alive)
    found = sent(Outgoing, messages, method, keep_alive)
    assert found[1:] == wanted[1:]
    if not wanted[-1]:
        assert found[0] == wanted[0]
    else:  # of an answer that can't be sent the client gets nothing, or what uvicorn had sent of it
        assert wanted[0].startswith(found[0])


def test_a_whole_answer_is_one_write() -> None:
    async def run() -> int:
        wire = Wire()
        cycle = made(Outgoing, wire, "POST", True, [])
        await cycle.send(start(JSON, length(2)))
        assert wire.writes == 0
        await cycle.send(body(b"{}"))
        return wire.writes

    assert asyncio.run(run()) == 1


def test_a_client_that_left_is_sent_nothing() -> None:
    async def run() -> bytes:
        wire = Wire()
        cycle = made(Outgoing, wire, "POST", True, [])
        await cycle.send(start(JSON, length(2)))
        cycle.disconnected = True
        await cycle.send(body(b"{}"))
        return wire.came

    assert asyncio.run(run()) == b""
