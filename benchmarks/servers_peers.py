"""The servers that are compared: how each is started with the two models, and what one request to it is.

Each is set up as its own documentation says for speed: binary tensors where it takes them, access logs off, one worker,
batches of up to 64 rows where it makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from processes import ROOT, SERVER_CORE, free_port, pinned

SERVED = Path(__file__).parent / "served"
MODELS = ("tiny", "digits")
SHAPES = {"tiny": (1, 3), "digits": (1, 1, 28, 28)}


Names = tuple[str, str]
"""Those of a model's input and output, as our bundle has them; the others' are x and y."""


@dataclass(frozen=True)
class Start:
    """What starts a server: its command, and what its environment has besides ours."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A server: where its environment is, how it is started in a folder at a port, and the bytes of a request."""

    name: str
    environment: str | None
    start: Callable[[Path, int], Start]
    request: Callable[[str, np.ndarray, Names], bytes]
    sleeps: bool = True
    """Triton ends when it was stopped: a lock between its processes times out. It is quiet while nobody asks."""

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self.environment is None else _bin(self.environment) / "python"


def _bin(environment: str) -> Path:
    return ROOT / ".peers" / environment / "bin"


# ---------------------------------------------------------------- requests
def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _json(path: str, document: Any) -> bytes:
    return _post(path, json.dumps(document).encode(), "Content-Type: application/json")


def binary_request(model: str, x: np.ndarray, names: Names = ("x", "y"), *headers: str) -> bytes:
    """The Open Inference Protocol with its binary tensors; `names` are those of input and output."""
    given = {"name": names[0], "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    wanted = {"name": names[1], "parameters": {"binary_data": True}}
    head = json.dumps({"id": "1", "inputs": [given], "outputs": [wanted]}).encode()
    told = f"Inference-Header-Content-Length: {len(head)}"
    return _post(
        f"/v2/models/{model}/infer", head + x.tobytes(), "Content-Type: application/octet-stream", told, *headers
    )


def _oip_json(model: str, x: np.ndarray, _: Names) -> bytes:
    given = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    return _json(f"/v2/models/{model}/infer", {"inputs": [given]})


# ---------------------------------------------------------------- starting
def _script(name: str, environment: str | None) -> Callable[[Path, int], Start]:
    python = sys.executable if environment is None else str(_bin(environment) / "python")
    return lambda folder, port: Start([python, str(SERVED / name), str(port)])


def _ours(folder: Path, port: int) -> Start:
    targets = ["tiny=echo:?x=FP32[-1,3]", f"digits=torch:{folder.parent / 'models' / 'digits'}"]
    program = Path(sys.executable).with_name("aiaas")
    return Start([str(program), "serve", *targets, "--port", str(port)], {"PYTHONPATH": str(ROOT)})


TRITON = """
name: "%(name)s"
backend: "python"
max_batch_size: 64
input [{ name: "x", data_type: TYPE_FP32, dims: %(inputs)s }]
output [{ name: "y", data_type: TYPE_FP32, dims: %(outputs)s }]
instance_group [{ kind: KIND_CPU, count: 1 }]
dynamic_batching { }
parameters { key: "folder" value { string_value: "%(folder)s" } }
"""


def _triton(folder: Path, port: int) -> Start:
    libraries = next((_bin("triton").parent).glob("lib/python3*/site-packages"))
    program = libraries / "pytriton" / "tritonserver"
    backend, stub = folder / "backends" / "python", "triton_python_backend_stub"
    shutil.copytree(program / "backends" / "python", backend)
    version = libraries.parent.name.removeprefix("python")
    shutil.copy2(program / "python_backend_stubs" / version / stub, backend / stub)
    for name, inputs, outputs in (("tiny", "[3]", "[3]"), ("digits", "[1, 28, 28]", "[10]")):
        place = folder / "models" / name
        (place / "1").mkdir(parents=True)
        shutil.copy2(SERVED / "triton_model.py", place / "1" / "model.py")
        told = {"name": name, "inputs": inputs, "outputs": outputs, "folder": str(SERVED)}
        (place / "config.pbtxt").write_text(TRITON % told)
    command = [
        str(program / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=1",
    ]
    environment = {
        "LD_LIBRARY_PATH": f"{libraries / 'nvidia_pytriton.libs'}:{program / 'lib'}",
        "PYTHONPATH": str(libraries),
        "PATH": f"{_bin('triton')}:{os.environ['PATH']}",
    }
    return Start(command, environment)


def _mlserver(folder: Path, port: int) -> Start:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,  # the models in the server's own process: there is one core
        "gzip_enabled": False,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, more in (("tiny", {}), ("digits", {"max_batch_size": 64, "max_batch_time": 0.001})):
        (folder / name).mkdir()
        model = {
            "name": name,
            "implementation": f"mlserver_models.{name.title()}",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, *SHAPES[name][1:]]}],
            **more,
        }
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    return Start([str(_bin("mlserver") / "mlserver"), "start", str(folder)], {"PYTHONPATH": str(SERVED)})


def _bento(folder: Path, port: int) -> Start:
    command = [str(_bin("bentoml") / "bentoml"), "serve", "bento:Served", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"PYTHONPATH": str(SERVED), "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "true"}
    return Start([*command, "--working-dir", str(SERVED)], environment)


PEERS = (
    Peer("uvicorn", None, _script("bare.py", None), lambda model, x, _: _post(f"/{model}", x.tobytes())),
    Peer("aiaas", None, _ours, lambda model, x, names: binary_request(model, x, names)),
    Peer("triton", "triton", _triton, lambda model, x, _: binary_request(model, x), sleeps=False),
    Peer("mlserver", "mlserver", _mlserver, _oip_json),
    Peer("kserve", "kserve", _script("kserve_app.py", "kserve"), lambda model, x, _: binary_request(model, x)),
    Peer(
        "litserve",
        "litserve",
        _script("litserve_app.py", "litserve"),
        lambda model, x, _: _json(f"/{model}", {"x": x[0].tolist()}),
    ),
    Peer("bentoml", "bentoml", _bento, lambda model, x, _: _json(f"/{model}", {"x": x.tolist()})),
)


# ---------------------------------------------------------------- running
@dataclass(frozen=True)
class Running:
    """A server that runs, at a port. It sleeps but for its turns: some are busy while nobody asks."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    sleeps: bool

    @contextlib.contextmanager
    def awake(self) -> Iterator[int]:
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield self.port
        finally:
            if self.process.poll() is not None:
                sys.exit(f"{self.log.parent.name} has ended:\n{self.log.read_text()[-3000:]}")
            if self.sleeps:
                os.killpg(self.process.pid, signal.SIGSTOP)


@contextlib.contextmanager
def running(peer: Peer, folder: Path, requests: Mapping[str, bytes], weights: Path) -> Iterator[Running]:
    """A server that answers each of the requests with 200; it ends with all its processes."""
    folder.mkdir()
    port = free_port()
    start = peer.start(folder, port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            start.command,
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{peer.python.parent}:{os.environ['PATH']}",
                "BENCH_TORCH": sysconfig.get_paths()["purelib"],
                "BENCH_WEIGHTS": str(weights),
                "OMP_NUM_THREADS": "1",
                **start.environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=pinned(SERVER_CORE),
        )
    try:
        for request in requests.values():
            _await_answer(peer, process, port, request, folder / "log")
        yield Running(port, process, folder / "log", peer.sleeps)
    finally:
        _end(process)


def _await_answer(peer: Peer, process: subprocess.Popen[bytes], port: int, request: bytes, log: Path) -> None:
    came, end = b"", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            came = answer(port, request)
            if came.startswith(b"HTTP/1.1 200"):
                return
            if came.startswith(b"HTTP/1.1 4") and not came.startswith(b"HTTP/1.1 404"):
                break
        time.sleep(0.2)
    sys.exit(f"{peer.name} doesn't answer: {came[:1000]!r}\n{log.read_text()[-4000:]}")


def answer(port: int, request: bytes) -> bytes:
    """All of one answer."""
    from servers_load import whole

    with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
        stream.sendall(request)
        came = b""
        while not whole(came) and (data := stream.recv(1 << 16)):
            came += data
        return came


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):  # workers may outlive the process that has started them
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
