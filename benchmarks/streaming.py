"""CPU time of one streamed chunk of a chat: `Model.stream` and `AsyncModel.stream` against the openai client.

One server, a process of bare sockets, sends a chat completion of 2,000 chunks: one by one, 0.2 ms apart, so that a
client reads each alone; slowly, 1 ms apart, where a client has left the processor's caches between two; and at once, so
that it reads many together. On a machine with other work the openai client, which needs about 0.2 ms for a chunk, reads
several together in the first case, too, and the ratio is worse than it should be. Each client is a process of
its own and takes turns with the others; a ratio is the median over the rounds of (ours / theirs in that round). CPU
time is the process's, user and system. Needs .peers/openai3 (`scripts/peers.sh openai3`).

    python benchmarks/streaming.py              # writes benchmarks/results/streaming.json
    python benchmarks/streaming.py --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import ROOT, Worker
from report import parser, written
from turns import orders

PEER = ROOT / ".peers" / "openai3" / "bin" / "python"
CHUNKS = 2_000
WORDS = (" the", " model", " says", " something", ",", " piece", " by", " piece", ".", " And", " so", " on")
TARGET, GOAL = 0.2, 0.12
"""What a chunk may cost of the openai client's, and what it is hoped to."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PACES = {"one by one": 0.0002, "slowly": 0.001, "at once": 0.0}
"""The model's name -> seconds between its chunks."""
CLIENTS = ("ours", "ours, async", "openai", "openai, async")


# ---------------------------------------------------------------- the server
def chunk(delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
    """One chunk as OpenAI sends it, framed for a chunked body."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
    return framed({**common, "system_fingerprint": "fp_1", "choices": [choice], "usage": None, **more})


def framed(document: Any) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def serve() -> None:
    """Prints its port; each POST is answered by the stream at the pace that its model's name says."""
    usage = {"prompt_tokens": 3, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 3}
    pieces = [chunk({"role": "assistant", "content": ""})]
    pieces += [chunk({"content": WORDS[place % len(WORDS)]}) for place in range(CHUNKS)]
    pieces += [chunk({}, "stop"), chunk({}, usage=usage, choices=[]), framed("[DONE]") + b"0\r\n\r\n"]
    models = b'{"object":"list","data":[{"id":"m","object":"model","created":0,"owned_by":"bench"}]}'
    listed = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(models) + models
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, pieces, listed), daemon=True).start()


def answer(connection: socket.socket, pieces: list[bytes], listed: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            size = 0
            while (entry := lines.readline()) not in (b"\r\n", b""):
                name, _, value = entry.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            body = lines.read(size)
            if line.startswith(b"GET"):
                connection.sendall(listed)
                continue
            pause = PACES[json.loads(body)["model"]]
            connection.sendall(HEAD)
            for piece in pieces:
                connection.sendall(piece)
                if pause:
                    time.sleep(pause)


# ---------------------------------------------------------------- the clients, each in its own process
def ours(port: int, pace: str) -> Callable[[], int]:
    import aiaas_sdk as aiaas

    model = aiaas.load(f"openai+http://127.0.0.1:{port}/v1", model=pace)

    def call() -> int:
        with model.stream("hi") as stream:
            return sum(len(delta.text) for delta in stream)

    return call


def ours_awaited(port: int, pace: str) -> Callable[[], Any]:
    import aiaas_sdk as aiaas

    model = aiaas.load_async(f"openai+http://127.0.0.1:{port}/v1", model=pace)

    async def call() -> int:
        count = 0
        async with model.stream("hi") as stream:
            async for delta in stream:
                count += len(delta.text)
        return count

    return call


ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def text_of(piece: Any) -> str:
    return (piece.choices[0].delta.content or "") if piece.choices else ""


def theirs(port: int, pace: str) -> Callable[[], int]:
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")

    def call() -> int:
        with client.chat.completions.create(model=pace, **ASKED) as stream:
            return sum(len(text_of(piece)) for piece in stream)

    return call


def theirs_awaited(port: int, pace: str) -> Callable[[], Any]:
    import openai

    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")

    async def call() -> int:
        count = 0
        async with await client.chat.completions.create(model=pace, **ASKED) as stream:
            async for piece in stream:
                count += len(text_of(piece))
        return count

    return call


MADE: dict[str, Callable[[int, str], Callable[[], Any]]] = dict(
    zip(CLIENTS, (ours, ours_awaited, theirs, theirs_awaited), strict=True)
)


def take_turns(name: str, port: int) -> None:
    """Each line on stdin is a turn, one stream at that pace; its CPU time per chunk goes to stdout in seconds."""
    calls = {pace: MADE[name](port, pace) for pace in PACES}
    loop = asyncio.new_event_loop() if "async" in name else None
    for line in sys.stdin:
        call = calls[line.strip()]
        begun = time.process_time()
        count = call() if loop is None else loop.run_until_complete(call())
        spent = time.process_time() - begun
        assert count == sum(len(WORDS[place % len(WORDS)]) for place in range(CHUNKS)), count
        print(spent / CHUNKS, flush=True)


# ---------------------------------------------------------------- the rounds
def measured(rounds: int) -> dict[str, list[dict[str, float]]]:
    """For each pace the rounds: seconds of CPU per chunk by client."""
    with contextlib.ExitStack() as stack:

        def worker(python: str | Path, *arguments: str) -> Worker:
            return stack.enter_context(Worker([python, __file__, *arguments]))

        port = str(worker(sys.executable, "--serve").answer())
        pythons = {name: PEER if "openai" in name else sys.executable for name in CLIENTS}
        clients = {name: worker(python, "--client", name, port) for name, python in pythons.items()}
        found = {}
        for pace in PACES:
            for client in clients.values():
                client.turn(pace)  # connections, imports and caches warm up
            found[pace] = [{name: clients[name].turn(pace) for name in order} for order in orders(CLIENTS, rounds)]
        return found


def figures(pace: str, found: list[dict[str, float]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    print(f"{f'{CHUNKS:,} chunks {pace}':26}{'CPU/chunk, us':>14}{'ratio':>8}{'best':>7}{'worst':>7}", end="")
    print(f"{'target':>8}{'goal':>6}")
    for name in CLIENTS:
        peer = name.replace("ours", "openai")
        cost = statistics.median(times[name] for times in found)
        told[name] = {"cpu_us": 1e6 * cost}
        print(f"{name:26}{1e6 * cost:>14.1f}", end="")
        if name != peer:
            ratios = [times[name] / times[peer] for times in found]
            told[name]["ratio"] = statistics.median(ratios)
            print(f"{told[name]['ratio']:>8.3f}{min(ratios):>7.3f}{max(ratios):>7.3f}{TARGET:>8}{GOAL:>6}", end="")
        print()
    return told


def main() -> None:
    made = parser(__doc__, "streaming")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    asked = made.parse_args()
    if asked.serve:
        return serve()
    if asked.client:
        return take_turns(asked.client[0], int(asked.client[1]))
    if not PEER.exists():
        raise SystemExit(f"{PEER} isn't there: run scripts/peers.sh openai3")
    told = {"python": platform.python_version(), "cores": os.cpu_count(), "rounds": asked.rounds}
    told |= {pace: figures(pace, found) for pace, found in measured(asked.rounds).items()}
    written(asked.json, told)
    return None


if __name__ == "__main__":
    main()
