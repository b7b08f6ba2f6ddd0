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
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from processes import CLIENT_CORE, ROOT, SERVER_CORE, Worker, await_ready, free_port, pinned, two_cores
from report import parser, written
from turns import middle, orders, ratio

ROW = 784
"""Numbers in a row: an image of a handwritten digit."""
BATCH_SIZES = (1, 32, 256)
BATCHES = 128
IN_FLIGHT = 8
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
    print('"ready"', flush=True)
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
    port = free_port()
    target = f"echo=echo:?x=FP32[-1,{ROW}]"
    process = subprocess.Popen(
        [sys.executable, "-m", "aiaas_sdk.cli", "serve", target, "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=pinned(SERVER_CORE),
    )
    try:
        url = f"http://127.0.0.1:{port}/v2/models/echo"
        await_ready(process, f"{url}/ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


# ---------------------------------------------------------------- taking turns
def client(name: str, url: str) -> Worker:
    command = [sys.executable, __file__, "--client", name, "--url", url]
    return Worker(command, CLIENT_CORE, {"PYTHONPATH": str(ROOT)})


def compare(url: str, batch_sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(client(name, url)) for name in CLIENTS}
        for one in clients.values():
            assert one.answer() == "ready"
        return [compare_size(clients, batch_size, rounds) for batch_size in batch_sizes]


def compare_size(clients: Mapping[str, Worker], batch_size: int, rounds: int) -> dict[str, Any]:
    names = list(clients)
    found = [{name: clients[name].turn(batch_size) for name in order} for order in orders(names, rounds)]
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "rows_per_s": {name: BATCHES * batch_size / middle(found, name, "wall") for name in names},
        "ratios": {
            f"{mine} / {other}": {what: ratio(found, mine, other, what) for what in ("wall", "cpu")}
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
    made = parser(__doc__, "mapping")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCH_SIZES))
    made.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    made.add_argument("--url", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.client:
        serve_turns(CLIENTS[options.client](options.url))
        return
    two_cores()
    with serving() as url:
        results = compare(url, options.batch_sizes, options.rounds)
    print(shown(results))
    written(options.json, results)


if __name__ == "__main__":
    main()
