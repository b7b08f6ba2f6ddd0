"""`predict` on one real Triton server, against tritonclient.http: wall time, CPU time, memory.

Both clients run in processes of their own and take turns on one core; the server has the other. A ratio is the
median over the rounds of (ours / theirs in that round), so a machine that slows down slows both. Needs Linux,
two cores and .peers/triton (`scripts/peers.sh triton`).

    python benchmarks/remote.py                 # all sizes; writes benchmarks/results/remote.json
    python benchmarks/remote.py --rounds 5 --sizes 12 1048576
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from processes import CLIENT_CORE, ROOT, SERVER_CORE, Worker, await_ready, free_port, pinned, two_cores
from report import parser, written
from turns import middle, orders, ratio

PEER = ROOT / ".peers" / "triton" / "bin" / "python"
MODEL = "echo"
SIZES = (12, 1 << 20, 16 << 20, 64 << 20)
TARGETS = {12: (1.0, 0.9), 1 << 20: (0.8, 0.6), 16 << 20: (0.85, 0.5), 64 << 20: (0.7, 0.4)}
"""Bytes -> wall and CPU ratio that shouldn't be exceeded."""
MEMORY_TARGET = 80.0
"""MiB by which one call of 64 MiB may raise the process's peak."""

CONFIG = """
backend: "python"
max_batch_size: 0
input [{ name: "x", data_type: TYPE_FP32, dims: [-1] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [-1] }]
instance_group [{ kind: KIND_CPU, count: 1 }]
"""
ECHO = """
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(triton.InferenceResponse([triton.Tensor("y", x)]))
        return answers
"""


# ---------------------------------------------------------------- the clients, each in its own process
def ours(port: int) -> Callable[[Any], Any]:
    import aiaas_sdk as aiaas

    model = aiaas.load(f"http://127.0.0.1:{port}/v2/models/{MODEL}")
    return lambda x: model.predict(x)["y"]


def theirs(port: int) -> Callable[[Any], Any]:
    import tritonclient.http as client

    server = client.InferenceServerClient(f"127.0.0.1:{port}")

    def call(x: Any) -> Any:
        given = client.InferInput("x", x.shape, "FP32")
        given.set_data_from_numpy(x)
        wanted = [client.InferRequestedOutput("y")]
        return server.infer(MODEL, [given], outputs=wanted).as_numpy("y")

    return call


def serve_turns(call: Callable[[Any], Any]) -> None:
    """Each line on stdin, `SIZE COUNT`, is a turn; its times go to stdout as one line of JSON."""
    import numpy as np

    inputs = {size: np.arange(size // 4, dtype=np.float32) for size in SIZES}
    print('"ready"', flush=True)
    for line in sys.stdin:
        size, count = map(int, line.split())
        x = inputs.setdefault(size, np.arange(size // 4, dtype=np.float32))
        assert np.array_equal(call(x), x)
        before = peak()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            call(x)
        times = {"wall": (time.perf_counter() - wall) / count, "cpu": (time.process_time() - cpu) / count}
        print(json.dumps({**times, "grown": peak() - before}), flush=True)


def measure_memory(call: Callable[[Any], Any], size: int) -> None:
    """MiB by which the first large call raises this process's peak, after a small one."""
    import numpy as np

    x = np.ones(size // 4, np.float32)
    call(x[:3])
    before = peak()
    y = call(x)
    print(json.dumps({"grown": peak() - before}), flush=True)
    assert y.nbytes == size


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------- the server
@contextlib.contextmanager
def triton(*options: str) -> Iterator[int]:
    """A tritonserver with the model `echo`, started with further options; gives its HTTP port."""
    libraries = next(PEER.parent.parent.glob("lib/python3*/site-packages"))
    program = libraries / "pytriton" / "tritonserver"
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        backend = place / "backends" / "python"
        shutil.copytree(program / "backends" / "python", backend)
        stub = "triton_python_backend_stub"
        shutil.copy2(program / "python_backend_stubs" / python_version() / stub, backend / stub)
        version = place / "models" / MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(ECHO)
        (version.parent / "config.pbtxt").write_text(CONFIG)
        process = subprocess.Popen(
            [
                program / "bin" / "tritonserver",
                f"--model-repository={place / 'models'}",
                f"--backend-directory={place / 'backends'}",
                "--http-address=127.0.0.1",
                f"--http-port={port}",
                *(options or ["--allow-grpc=false"]),
                "--allow-metrics=false",
                "--exit-timeout-secs=1",
            ],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": f"{libraries / 'nvidia_pytriton.libs'}:{program / 'lib'}",
                "PYTHONPATH": str(libraries),
                "PATH": f"{PEER.parent}:{os.environ['PATH']}",
            },
            stdout=(place / "log").open("wb"),
            stderr=subprocess.STDOUT,
            preexec_fn=pinned(SERVER_CORE),
        )
        try:
            await_ready(process, f"http://127.0.0.1:{port}/v2/models/{MODEL}/ready", place / "log")
            yield port
        finally:
            process.terminate()
            process.wait(30)


def python_version() -> str:
    command = [str(PEER), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def peer_there() -> None:
    """Ends the benchmark without it."""
    if not PEER.exists():
        sys.exit("there is no .peers/triton; make it with scripts/peers.sh triton")


# ---------------------------------------------------------------- taking turns
def client(name: str, port: int, *more: str, script: str = __file__) -> Worker:
    """A client's process; theirs has libraries of its own."""
    python, path = (sys.executable, str(ROOT)) if name == "ours" else (PEER, "")
    return Worker([python, script, "--client", name, "--port", str(port), *more], CLIENT_CORE, {"PYTHONPATH": path})


def compare(port: int, sizes: list[int], rounds: int, script: str = __file__) -> list[dict[str, Any]]:
    with client("ours", port, script=script) as ours, client("theirs", port, script=script) as theirs:
        pair = {"ours": ours, "theirs": theirs}
        for one in pair.values():
            assert one.answer() == "ready"
        return [compare_size(pair, size, rounds) for size in sizes]


def compare_size(pair: Mapping[str, Worker], size: int, rounds: int) -> dict[str, Any]:
    count = max(1, min(300, (48 << 20) // max(size, 1)))
    found = [{name: pair[name].turn(f"{size} {count}") for name in order} for order in orders(list(pair), rounds)]
    return {
        "bytes": size,
        "rounds": rounds,
        "calls_a_turn": count,
        "wall_ratio": ratio(found, "ours", "theirs", "wall"),
        "cpu_ratio": ratio(found, "ours", "theirs", "cpu"),
        **{name: {f"{what}_us": 1e6 * middle(found, name, what) for what in ("wall", "cpu")} for name in pair},
        "target": TARGETS.get(size),
    }


def memory(port: int, size: int, script: str = __file__) -> dict[str, Any]:
    grown = {}
    for name in ("ours", "theirs"):
        with client(name, port, "--memory", str(size), script=script) as one:
            grown[name] = one.answer()["grown"]
    return {"bytes": size, "grown_mib": grown, "target_mib": MEMORY_TARGET}


# ---------------------------------------------------------------- the report
def shown(result: dict[str, Any]) -> str:
    lines = ["    bytes   wall    CPU   target        ours us (CPU)      theirs us (CPU)"]
    for row in result["calls"]:
        target = "{:.2f} ({:.2f})".format(*row["target"]) if row["target"] else "-"
        mine, other = row["ours"], row["theirs"]
        lines.append(
            f"{row['bytes']:>9}  {row['wall_ratio']:5.2f}  {row['cpu_ratio']:5.2f}   {target}"
            f"  {mine['wall_us']:9.0f} ({mine['cpu_us']:.0f})  {other['wall_us']:9.0f} ({other['cpu_us']:.0f})"
        )
    grown = result["memory"]["grown_mib"]
    lines.append(
        f"memory grown by a call of 64 MiB: ours {grown['ours']:.0f} MiB (target {MEMORY_TARGET:.0f}),"
        f" tritonclient {grown['theirs']:.0f} MiB"
    )
    return "\n".join(lines)


def asked(text: str | None, name: str, sizes: Sequence[int]) -> argparse.Namespace:
    made = parser(text, name)
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--sizes", type=int, nargs="+", default=list(sizes))
    made.add_argument("--client", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    made.add_argument("--port", type=int, help=argparse.SUPPRESS)
    made.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    return made.parse_args()


def work(make: Callable[[int], Callable[[Any], Any]], options: argparse.Namespace) -> None:
    """A client's process."""
    if options.memory:
        measure_memory(make(options.port), options.memory)
    else:
        serve_turns(make(options.port))


def main() -> None:
    options = asked(__doc__, "remote", SIZES)
    if options.client:
        work(ours if options.client == "ours" else theirs, options)
        return
    peer_there()
    two_cores()
    with triton() as port:
        result = {"calls": compare(port, options.sizes, options.rounds), "memory": memory(port, SIZES[-1])}
    print(shown(result))
    written(options.json, result)


if __name__ == "__main__":
    main()
