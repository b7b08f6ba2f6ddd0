"""Clients of a server: most ask and wait, and of a hundred 5 stall, 5 reset the connection and 5 leave."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 10.0
SHARES = {"stall": 0.05, "reset": 0.05, "cancel": 0.05}
SIZES = (12, 12, 12, 4096, 300_000)  # bytes of a tensor
HEADER = "Inference-Header-Content-Length"


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def infer(tensor: bytes) -> bytes:
    given = {"name": "x", "shape": [len(tensor)], "datatype": "UINT8", "parameters": {"binary_data_size": len(tensor)}}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    return post("/v2/models/echo/infer", head + tensor, f"{HEADER}: {len(head)}")


def chat(words: str, *, stream: bool = False) -> bytes:
    asked = {"model": "talk", "messages": [{"role": "user", "content": words}], "stream": stream}
    return post("/v1/chat/completions", json.dumps(asked).encode())


@dataclass
class Load:
    """So many clients at once, until they are told to end; how their calls ended is counted."""

    port: int
    seed: int = 1
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _over: bool = False

    async def run(self, clients: int, seconds: float) -> None:
        self._over = False
        tasks = [asyncio.ensure_future(self._client(random.Random(self.seed * 1000 + n))) for n in range(clients)]
        await asyncio.sleep(seconds)
        self._over = True
        await asyncio.gather(*tasks)
        self.seed += 1

    async def _client(self, chance: random.Random) -> None:
        stream: Stream | None = None
        while not self._over:
            kind = chance.choices(("ask", *SHARES), (1 - sum(SHARES.values()), *SHARES.values()))[0]
            if stream is None:
                stream = await Stream.to(self.port)
            kept = await KINDS[kind](self, stream, chance)
            self.ends[kind] += 1
            if not kept:
                stream = None
        if stream is not None:
            stream.close()

    # ------------------------------------------------------------ kinds
    async def _ask(self, stream: Stream, chance: random.Random) -> bool:
        if chance.random() < 0.15:
            await stream.send(chat("wait:0.005 a b c", stream=chance.random() < 0.5))
            answer = await stream.answer()
            self._check(answer.startswith(b"HTTP/1.1 200") and b"c" in answer, answer)
            return True
        tensor = chance.randbytes(chance.choice(SIZES))
        await stream.send(infer(tensor))
        answer = await stream.answer()
        self._check(answer.startswith(b"HTTP/1.1 200") and answer.endswith(tensor), answer)
        return True

    def _check(self, right: bool, answer: bytes) -> None:
        if not right:
            self.wrong.append(repr(answer[:300]))

    async def _stall(self, stream: Stream, chance: random.Random) -> bool:
        """A part of a request, and silence."""
        data = infer(chance.randbytes(4096))
        await stream.send(data[: chance.randrange(1, len(data))])
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        stream.close()
        return False

    async def _reset(self, stream: Stream, chance: random.Random) -> bool:
        data = chance.choice((infer(chance.randbytes(100_000)), chat("wait:0.02 a")))
        await stream.send(data[: chance.randrange(1, len(data) + 1)])
        await asyncio.sleep(chance.choice((0, 0.002, 0.02)))
        stream.reset()
        return False

    async def _cancel(self, stream: Stream, chance: random.Random) -> bool:
        """A request that takes long, and nobody who waits for its end."""
        await stream.send(chance.choice((chat("forever", stream=True), chat("wait:0.1 a"))))
        await asyncio.sleep(chance.uniform(0, 0.15))
        stream.close()
        return False


Kind = Callable[[Load, "Stream", random.Random], Awaitable[bool]]
KINDS: dict[str, Kind] = {"ask": Load._ask, "stall": Load._stall, "reset": Load._reset, "cancel": Load._cancel}


class Stream:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Stream:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> bytes:
        """All of one."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
            if b"content-length" in fields:
                return head + await self._reader.readexactly(int(fields[b"content-length"]))
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
            return head + body

    def reset(self) -> None:
        """End it with an RST."""
        stream: Any = self._writer.get_extra_info("socket")
        with suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()
