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
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".peers" / "triton" / "bin" / "python"
MODEL = "echo"
SIZES = (12, 1 << 20, 16 << 20, 64 << 20)
TARGETS = {12: (1.0, 0.9), 1 << 20: (0.8, 0.6), 16 << 20: (0.85, 0.5), 64 << 20: (0.7, 0.4)}
"""Bytes -> wall and CPU ratio that shouldn't be exceeded."""
MEMORY_TARGET = 80.0
"""MiB by which one call of 64 MiB may raise the process's peak."""
CLIENT_CORE, SERVER_CORE = 0, 1

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
    print("ready", flush=True)
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
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
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
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        try:
            wait_ready(process, port, place / "log")
            yield port
        finally:
            process.terminate()
            process.wait(30)


def python_version() -> str:
    command = [str(PEER), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            opener.open(f"http://127.0.0.1:{port}/v2/models/{MODEL}/ready", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"tritonserver doesn't start:\n{log.read_text()[-3000:]}")


# ---------------------------------------------------------------- taking turns
class Client:
    """One client process, pinned to the clients' core."""

    def __init__(self, python: Path | str, name: str, port: int, *more: str, script: str = __file__) -> None:
        command = [str(python), script, "--client", name, "--port", str(port), *more]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT) if name == "ours" else ""},
            preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
        )

    def answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a client ended early (status {self.process.wait()})")
        return line

    def turn(self, size: int, count: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size} {count}\n")
        self.process.stdin.flush()
        return json.loads(self.answer())  # type: ignore[no-any-return]

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(30)


def compare(port: int, sizes: list[int], rounds: int, script: str = __file__) -> list[dict[str, Any]]:
    pair = (Client(sys.executable, "ours", port, script=script), Client(PEER, "theirs", port, script=script))
    try:
        for client in pair:
            assert client.answer() == "ready\n"
        return [compare_size(pair, size, rounds) for size in sizes]
    finally:
        for client in pair:
            client.end()


def compare_size(pair: tuple[Client, Client], size: int, rounds: int) -> dict[str, Any]:
    count = max(1, min(300, (48 << 20) // max(size, 1)))
    found = []
    for number in range(rounds):
        order = pair if number % 2 == 0 else pair[::-1]
        turns = {client: client.turn(size, count) for client in order}
        found.append([turns[client] for client in pair])

    def ratio(what: str) -> float:
        return statistics.median(mine[what] / other[what] for mine, other in found)

    def middle(who: int, what: str) -> float:
        return statistics.median(turn[who][what] for turn in found)

    return {
        "bytes": size,
        "rounds": rounds,
        "calls_a_turn": count,
        "wall_ratio": ratio("wall"),
        "cpu_ratio": ratio("cpu"),
        "ours": {"wall_us": middle(0, "wall") * 1e6, "cpu_us": middle(0, "cpu") * 1e6},
        "theirs": {"wall_us": middle(1, "wall") * 1e6, "cpu_us": middle(1, "cpu") * 1e6},
        "target": TARGETS.get(size),
    }


def memory(port: int, size: int, script: str = __file__) -> dict[str, Any]:
    grown = {}
    for name, python in (("ours", sys.executable), ("theirs", PEER)):
        client = Client(python, name, port, "--memory", str(size), script=script)
        grown[name] = json.loads(client.answer())["grown"]
        client.end()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "remote.json")
    parser.add_argument("--client", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        call = (ours if options.client == "ours" else theirs)(options.port)
        if options.memory:
            measure_memory(call, options.memory)
        else:
            serve_turns(call)
        return
    if not PEER.exists():
        sys.exit("there is no .peers/triton; make it with scripts/peers.sh triton")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("client and server need a core each")
    with triton() as port:
        result = {"calls": compare(port, options.sizes, options.rounds), "memory": memory(port, SIZES[-1])}
    print(shown(result))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
