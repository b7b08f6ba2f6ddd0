"""64 tiny calls in flight on one event loop, at one real Triton: ours, tritonclient.http.aio and plain httpx.

The clients run in processes of their own and take turns on one core; the server has the other. A figure is the median
over the rounds of (theirs / ours in that round), in requests per second and in CPU time per request. httpx posts the
same bytes and looks at nothing of the answer but its status. Needs Linux, two cores and .peers/triton
(`scripts/peers.sh triton`).

    python benchmarks/inflight.py            # writes benchmarks/results/inflight.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from processes import CLIENT_CORE, ROOT, Worker, two_cores
from remote import MODEL, PEER, peer_there, triton
from report import parser, written
from turns import Round, middle, orders, ratio

IN_FLIGHT = 64
CALLS = {"ours": 64 * 30, "tritonclient": 64 * 30, "httpx": 64 * 3}
"""Calls of a turn; httpx is much slower."""
TARGETS = {"tritonclient": 1.0}
"""How many times its requests per second are wanted at least."""
X = np.arange(3, dtype=np.float32)

Call = Callable[[], Awaitable[Any]]
Pair = tuple[Call, Call]
"""One call, and the end of the client."""


# ---------------------------------------------------------------- the clients, each in its own process
def ours(port: int) -> Pair:
    import aiaas_sdk as aiaas

    model = aiaas.load_async(f"http://127.0.0.1:{port}/v2/models/{MODEL}")

    async def call() -> Any:
        return (await model.predict(X))["y"]

    return call, model.aclose


def tritonclient(port: int) -> Pair:
    import tritonclient.http.aio as client

    server = client.InferenceServerClient(f"127.0.0.1:{port}")

    async def call() -> Any:
        given = client.InferInput("x", X.shape, "FP32")
        given.set_data_from_numpy(X)
        return (await server.infer(MODEL, [given], outputs=[client.InferRequestedOutput("y")])).as_numpy("y")

    return call, server.close


def httpx(port: int) -> Pair:
    import httpx as library

    asked = {"name": "x", "shape": [3], "datatype": "FP32", "parameters": {"binary_data_size": X.nbytes}}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [asked], "outputs": [wanted]}).encode()
    limits = library.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    client = library.AsyncClient(limits=limits, trust_env=False, timeout=60)
    headers = {"inference-header-content-length": str(len(head)), "accept-encoding": "identity"}
    url, body = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", head + X.tobytes()

    async def call() -> Any:
        reply = await client.post(url, content=body, headers=headers)
        assert reply.status_code == 200
        return np.frombuffer(reply.content[-X.nbytes :], np.float32)

    return call, client.aclose


CLIENTS: dict[str, tuple[Path | str, Callable[[int], Pair]]] = {
    "ours": (sys.executable, ours),
    "tritonclient": (PEER, tritonclient),
    "httpx": (sys.executable, httpx),
}


async def serve_turns(make: Callable[[int], Pair], port: int) -> None:
    """Each line on stdin is a number of calls; what they took goes to stdout as one line of JSON."""
    call, close = make(port)

    async def worker(count: int) -> None:
        for _ in range(count):
            await call()

    async def turn(count: int) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
        return {"wall": (time.perf_counter() - wall) / count, "cpu": (time.process_time() - cpu) / count}

    assert np.array_equal(await call(), X)
    await turn(2 * IN_FLIGHT)
    print('"ready"', flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await turn(int(line))), flush=True)
    await close()


# ---------------------------------------------------------------- taking turns
def client(name: str, port: int) -> Worker:
    python, _ = CLIENTS[name]
    path = "" if python == PEER else str(ROOT)
    return Worker([python, __file__, "--client", name, "--port", str(port)], CLIENT_CORE, {"PYTHONPATH": path})


def compare(port: int, rounds: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(client(name, port)) for name in CLIENTS}
        for one in clients.values():
            assert one.answer() == "ready"
        found = [{name: clients[name].turn(CALLS[name]) for name in order} for order in orders(list(CLIENTS), rounds)]
    return {"rounds": rounds, "clients": {name: figures(name, found) for name in CLIENTS}}


def figures(name: str, found: Sequence[Round]) -> dict[str, Any]:
    return {
        "requests_per_second": 1 / middle(found, name, "wall"),
        "cpu_us": 1e6 * middle(found, name, "cpu"),
        "ours_is_times_as_quick": ratio(found, name, "ours", "wall"),
        "cpu_ratio": ratio(found, name, "ours", "cpu"),
        "target": TARGETS.get(name),
    }


def shown(result: dict[str, Any]) -> str:
    lines = [f"{str(IN_FLIGHT) + ' calls in flight':20}{'requests/s':>12}{'CPU, us':>9}{'ours, times':>13}{'CPU':>7}"]
    for name, row in result["clients"].items():
        lines.append(
            f"{name:20}{row['requests_per_second']:>12.0f}{row['cpu_us']:>9.0f}"
            f"{row['ours_is_times_as_quick']:>13.2f}{row['cpu_ratio']:>7.2f}"
            + (f"   wanted at least {row['target']}" if row["target"] else "")
        )
    return "\n".join(lines)


def main() -> None:
    made = parser(__doc__, "inflight")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--client", choices=list(CLIENTS), help=argparse.SUPPRESS)
    made.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.client:
        asyncio.run(serve_turns(CLIENTS[options.client][1], options.port))
        return
    peer_there()
    two_cores()
    with triton() as port:
        result = compare(port, options.rounds)
    print(shown(result))
    written(options.json, result)


if __name__ == "__main__":
    main()
