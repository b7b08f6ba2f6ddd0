"""`map` over an endpoint against what one writes by hand: asyncio.gather with a semaphore, over httpx or our `predict`.

The server is `aiaas serve` with the echo model, on a core of its own; the clients run in processes of their own and
take turns on the other one. All send the same rows in the same batches, with as many calls in flight, and give one
array a row. A ratio is the median over the rounds of (ours / theirs in that round). Needs Linux and two cores.

    python benchmarks/mapping.py                     # writes benchmarks/results/mapping.json
    python benchmarks/mapping.py --rounds 5 --batch-sizes 32
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ROW = 784
"""Numbers in a row: an image of a handwritten digit."""
BATCH_SIZES = (1, 32, 256)
BATCHES = 128
IN_FLIGHT = 8
CLIENT_CORE, SERVER_CORE = 0, 1
OURS = ("Model.map", "AsyncModel.map")
THEIRS = ("httpx by hand", "AsyncModel.predict by hand")
Turn = Callable[[Any, int], list[Any]]
"""Gives one array a row, for the rows and the rows in a call."""


# ---------------------------------------------------------------- the clients, each in its own process
def model_map(url: str) -> Turn:
    import aiaas_sdk as aiaas

    model = aiaas.load(url)

    def turn(x: Any, batch_size: int) -> list[Any]:
        return [answer["x"] for answer in model.map(x, batch_size=batch_size, concurrency=IN_FLIGHT)]

    return turn


def async_model_map(url: str) -> Turn:
    import aiaas_sdk as aiaas

    model = aiaas.load_async(url)
    loop = asyncio.new_event_loop()

    async def turn(x: Any, batch_size: int) -> list[Any]:
        return [answer["x"] async for answer in model.map(x, batch_size=batch_size, concurrency=IN_FLIGHT)]

    return lambda x, batch_size: loop.run_until_complete(turn(x, batch_size))


def predict_by_hand(url: str) -> Turn:
    import aiaas_sdk as aiaas

    model = aiaas.load_async(url)
    loop = asyncio.new_event_loop()

    async def turn(x: Any, batch_size: int) -> list[Any]:
        free = asyncio.Semaphore(IN_FLIGHT)

        async def one(part: Any) -> Any:
            async with free:
                return (await model.predict(part))["x"]

        answers = await asyncio.gather(*(one(x[i : i + batch_size]) for i in range(0, len(x), batch_size)))
        return [row for answer in answers for row in answer]

    return lambda x, batch_size: loop.run_until_complete(turn(x, batch_size))


def httpx_by_hand(url: str) -> Turn:
    import httpx
    import numpy as np

    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient(timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=IN_FLIGHT))

    async def call(part: Any) -> Any:
        """The binary tensor data extension: JSON, and behind it the numbers as bytes."""
        raw = part.tobytes()
        given = {"name": "x", "datatype": "FP32", "shape": part.shape, "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            "Accept-Encoding": "identity",
        }
        reply = await client.post(f"{url}/infer", content=head + raw, headers=headers)
        reply.raise_for_status()
        length = int(reply.headers["Inference-Header-Content-Length"])
        output = json.loads(reply.content[:length])["outputs"][0]
        return np.frombuffer(reply.content, np.float32, offset=length).reshape(output["shape"])

    async def turn(x: Any, batch_size: int) -> list[Any]:
        free = asyncio.Semaphore(IN_FLIGHT)

        async def one(part: Any) -> Any:
            async with free:
                return await call(part)

        answers = await asyncio.gather(*(one(x[i : i + batch_size]) for i in range(0, len(x), batch_size)))
        return [row for answer in answers for row in answer]

    return lambda x, batch_size: loop.run_until_complete(turn(x, batch_size))


CLIENTS = {
    "Model.map": model_map,
    "AsyncModel.map": async_model_map,
    "httpx by hand": httpx_by_hand,
    "AsyncModel.predict by hand": predict_by_hand,
}


def serve_turns(turn: Turn) -> None:
    """Each line on stdin, a batch size, is a turn; its times go to stdout as one line of JSON."""
    import numpy as np

    x = np.random.default_rng(0).normal(size=(BATCHES * max(BATCH_SIZES), ROW)).astype(np.float32)
    assert np.array_equal(np.stack(turn(x[:100], 8)), x[:100])
    print("ready", flush=True)
    for line in sys.stdin:
        batch_size = int(line)
        rows = x[: BATCHES * batch_size]
        wall, cpu = time.perf_counter(), time.process_time()
        count = len(turn(rows, batch_size))
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        assert count == len(rows)
        print(json.dumps(times), flush=True)


# ---------------------------------------------------------------- the server
@contextlib.contextmanager
def serving() -> Iterator[str]:
    """`aiaas serve` with the echo model; gives the model's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target = f"echo=echo:?x=FP32[-1,{ROW}]"
    process = subprocess.Popen(
        [sys.executable, "-m", "aiaas_sdk.cli", "serve", target, "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    try:
        wait_ready(process, f"http://127.0.0.1:{port}/v2/models/echo")
        yield f"http://127.0.0.1:{port}/v2/models/echo"
    finally:
        process.terminate()
        process.wait(30)


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            opener.open(f"{url}/ready", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit("the server doesn't start")


# ---------------------------------------------------------------- taking turns
class Client:
    """One client process, pinned to the clients' core."""

    def __init__(self, name: str, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--client", name, "--url", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
        )

    def answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a client ended early (status {self.process.wait()})")
        return line

    def turn(self, batch_size: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batch_size}\n")
        self.process.stdin.flush()
        return json.loads(self.answer())  # type: ignore[no-any-return]

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(30)


def compare(url: str, batch_sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    clients = {name: Client(name, url) for name in CLIENTS}
    try:
        for client in clients.values():
            assert client.answer() == "ready\n"
        return [compare_size(clients, batch_size, rounds) for batch_size in batch_sizes]
    finally:
        for client in clients.values():
            client.end()


def compare_size(clients: dict[str, Client], batch_size: int, rounds: int) -> dict[str, Any]:
    found: list[dict[str, dict[str, float]]] = []
    names = list(clients)
    for number in range(rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        found.append({name: clients[name].turn(batch_size) for name in order})

    def ratio(mine: str, other: str, what: str) -> float:
        return statistics.median(turn[mine][what] / turn[other][what] for turn in found)

    rows = BATCHES * batch_size
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "rows_per_s": {name: rows / statistics.median(turn[name]["wall"] for turn in found) for name in names},
        "ratios": {
            f"{mine} / {other}": {what: ratio(mine, other, what) for what in ("wall", "cpu")}
            for mine in OURS
            for other in THEIRS
        },
    }


# ---------------------------------------------------------------- the report
def shown(results: list[dict[str, Any]]) -> str:
    lines = [f"{IN_FLIGHT} calls in flight, rows of {ROW} FP32; below 1 is quicker than by hand", ""]
    for result in results:
        lines.append(f"batches of {result['batch_size']:<6}{'wall':>30}{'CPU':>8}")
        for pair, ratios in result["ratios"].items():
            lines.append(f"  {pair:<44}{ratios['wall']:>4.2f}{ratios['cpu']:>8.2f}")
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in result["rows_per_s"].items())
        lines += [f"  rows/s: {rates}", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "mapping.json")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        serve_turns(CLIENTS[options.client](options.url))
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("clients and server need a core each")
    with serving() as url:
        results = compare(url, options.batch_sizes, options.rounds)
    print(shown(results))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
