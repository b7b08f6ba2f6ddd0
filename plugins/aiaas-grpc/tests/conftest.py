"""Real servers for the tests: `aiaas serve`, one of gRPC's own that does what a test says, Triton, MLServer, KServe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiaas_grpc.codec import decode_request, encode_metadata, encode_response
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import message

from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.testing.processes import free_port, server_process
from aiaas_sdk.wire.oip import InferResponse, ModelMetadata


# ---------------------------------------------------------------- ours
@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Starts `aiaas serve` with gRPC; gives `grpc://HOST:PORT`. All end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*targets: str, **options: Any) -> str:
            port = free_port()
            stack.enter_context(serve_in_thread(targets, grpc_port=port, **options))
            return f"grpc://127.0.0.1:{port}"

        yield start


# ---------------------------------------------------------------- one that does what a test says
class Scripted(grpc.GenericRpcHandler):
    """gRPC's own server with the model `double` (x FP32 [-1,3] -> y = 2x), whose next calls go as `say` says.

    Attributes:
        seen: (method, metadata, seconds left) of each call.
        ended: for each call whose client went away before its end, a set event.
    """

    def __init__(self, unix: Path | None = None, **credentials: Any) -> None:
        self.seen: list[tuple[str, dict[str, str], float | None]] = []
        self.ended = threading.Event()
        self._script: list[Callable[[Any], None]] = []
        self._credentials, self._unix = credentials, unix
        self.port = 0
        self.start()

    def start(self) -> None:
        # the default limit of what it takes, 4 MiB
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((self,))
        place = f"unix:{self._unix}" if self._unix else f"127.0.0.1:{self.port}"
        if self._credentials:
            made = grpc.ssl_server_credentials(**self._credentials)
            self.port = self._server.add_secure_port(place, made)
        else:
            self.port = self._server.add_insecure_port(place)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown(wait=True)

    @property
    def address(self) -> str:
        return f"grpc{'s' if self._credentials else ''}://127.0.0.1:{self.port}/models/double"

    def say(self, *steps: Callable[[Any], None] | None) -> None:
        """What the next calls of ModelInfer do with their context before they answer; None answers at once."""
        self._script = [step or (lambda context: None) for step in steps]

    @staticmethod
    def refusing(code: str, words: str = "", **metadata: str) -> Callable[[Any], None]:
        """A step that answers with a status."""

        def step(context: Any) -> None:
            if metadata:
                context.set_trailing_metadata([(name.replace("_", "-"), value) for name, value in metadata.items()])
            context.abort(grpc.StatusCode[code], words)

        return step

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        known = {"ModelMetadata": self._metadata, "ModelInfer": self._infer, "ModelReady": self._ready}
        if method not in known:
            return None

        def answer(body: bytes, context: Any) -> bytes:
            self.seen.append((method, dict(context.invocation_metadata()), context.time_remaining()))
            return known[method](body, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _metadata(self, body: bytes, context: Any) -> bytes:
        shape = (-1, 3)
        return encode_metadata(
            ModelMetadata(
                name="double",
                versions=("1",),
                platform="test",
                inputs=(TensorSpec("x", "FP32", shape),),
                outputs=(TensorSpec("y", "FP32", shape),),
                parameters={"labels": ["a", "b", "c"], "device": "cpu", "note": "plain", "missing": None},
            )
        )

    def _ready(self, body: bytes, context: Any) -> bytes:
        return message("inference.ModelReadyResponse")(ready=True).SerializeToString()

    def _infer(self, body: bytes, context: Any) -> bytes:
        if self._script:
            self._script.pop(0)(context)
        _, _, request = decode_request(body)
        y = Tensor("FP32", 2 * request.inputs["x"].array)
        return b"".join(
            encode_response(InferResponse(model_name="double", model_version="1b", id=request.id, outputs={"y": y}))
        )


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


# ---------------------------------------------------------------- strangers
DOUBLE = """
import time
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            if x.size and x.flat[0] == -999:
                raise ValueError("this model's own fault")
            {pause}
            answers.append(triton.InferenceResponse([triton.Tensor("y", {y})]))
        return answers
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input [{{ name: "x", data_type: TYPE_{datatype}, dims: [-1, 3] }}]
output [{{ name: "y", data_type: TYPE_{datatype}, dims: [-1, 3] }}]
instance_group [{{ kind: KIND_CPU, count: 1 }}]
"""
TRITON_MODELS = {
    "double": ("FP32", "", "2 * x"),
    "slow": ("FP32", "time.sleep(0.6)", "2 * x"),
    "text": ("STRING", "", "x"),
    "half": ("FP16", "", "2 * x"),
}


TALK = """
import json
import re
import time
import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                for outputs in self.answer(request):
                    if request.is_cancelled():
                        break
                    sender.send(triton.InferenceResponse(outputs))
            except Exception as error:
                sender.send(triton.InferenceResponse(error=triton.TritonError(str(error))))
            sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    {answer}
"""
SPEAK = """
    def answer(self, request):
        given = {name: triton.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]
                 for name in ("text_input", "stream", "sampling_parameters")}
        options = json.loads(given["sampling_parameters"])
        text = given["text_input"].decode()
        for stop in options.get("stop", ()):
            text = text.partition(stop)[0]
        said = re.findall(r"\\s*\\S+", text)
        words = said[: options.get("max_tokens")]
        reason = b"stop" if len(words) == len(said) else b"length"
        for word in words if given["stream"] else ["".join(words)]:
            if word.strip() == "fail":
                raise ValueError("this model's own fault")
            for _ in range(500 if word == "forever" else 1):
                time.sleep(0.01 if word == "forever" else 0)
                told = [] if given["stream"] else [triton.Tensor("finish_reason", np.array([reason], object))]
                yield [triton.Tensor("text_output", np.array([word.encode()], object)), *told]
        if given["stream"]:  # why it ended comes with no text, as vLLM tells it
            yield [triton.Tensor("text_output", np.array([b""], object)),
                   triton.Tensor("finish_reason", np.array([reason], object))]
"""
COUNT = """
    def answer(self, request):
        for number in range(int(triton.get_input_tensor_by_name(request, "x").as_numpy().ravel()[0])):
            yield [triton.Tensor("y", np.full((1, 3), number, np.float32))]
"""
DECOUPLED_MODELS = {
    "talk": (
        SPEAK,
        'input [{ name: "text_input", data_type: TYPE_STRING, dims: [1] }, { name: "stream", data_type: TYPE_BOOL,'
        ' dims: [1] }, { name: "sampling_parameters", data_type: TYPE_STRING, dims: [1] }]\n'
        'output [{ name: "text_output", data_type: TYPE_STRING, dims: [1] }, { name: "finish_reason",'
        " data_type: TYPE_STRING, dims: [1] }]\n",
    ),
    "count": (
        COUNT,
        'input [{ name: "x", data_type: TYPE_FP32, dims: [-1, 3] }]\n'
        'output [{ name: "y", data_type: TYPE_FP32, dims: [-1, 3] }]\n',
    ),
}
"""Decoupled models: the code of one method, and the signature."""
DECOUPLED = 'backend: "python"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n'


def write_decoupled(models: Path) -> None:
    for name, (answer, signature) in DECOUPLED_MODELS.items():
        version = models / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(TALK.replace("{answer}", answer.strip()))
        (version.parent / "config.pbtxt").write_text(
            DECOUPLED + signature + "instance_group [{ kind: KIND_CPU, count: 1 }]"
        )


class Triton:
    """A tritonserver.

    Now and then 24.10 ends with a segmentation fault of its own after a client has left a decoupled stream, which the
    suite does on purpose; so it is looked after.
    """

    def __init__(self, command: Sequence[str | Path], folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.port, self._ready = port, ready(port)
        self._how = (command, folder, self._ready, environment)
        self._stack = contextlib.ExitStack()

    def revive(self) -> None:
        """Start it, unless it runs."""
        if not self._ready():
            self.end()
            self._stack.enter_context(server_process(*self._how))

    def end(self) -> None:
        self._stack.close()


@pytest.fixture(autouse=True)
def _triton_lives(request: pytest.FixtureRequest) -> None:
    if "triton" in request.fixturenames:
        request.getfixturevalue("triton_process").revive()


@pytest.fixture(scope="session")
def triton(triton_process: Triton) -> str:
    """`grpc://HOST:PORT` of a tritonserver with `double`, `slow`, `text` (BYTES, echo), `half` (FP16), and decoupled
    `talk` (says the words of a text) and `count` (as many responses as x says).
    """
    return f"grpc://127.0.0.1:{triton_process.port}"


@pytest.fixture(scope="session")
def triton_process(triton_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("triton")
    libraries = next(triton_env.parent.parent.glob("lib/python3*/site-packages"))
    program, stub = libraries / "pytriton" / "tritonserver", "triton_python_backend_stub"
    backend = folder / "backends" / "python"
    shutil.copytree(program / "backends" / "python", backend)
    python = subprocess.run(
        [triton_env, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    shutil.copy2(program / "python_backend_stubs" / python / stub, backend / stub)
    for name, (datatype, pause, y) in TRITON_MODELS.items():
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(DOUBLE.format(pause=pause or "pass", y=y))
        (version.parent / "config.pbtxt").write_text(CONFIG.format(datatype=datatype))
    write_decoupled(folder / "models")
    port = free_port()
    command = [
        program / "bin" / "tritonserver",
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=1",
    ]
    environment = {
        "LD_LIBRARY_PATH": f"{libraries / 'nvidia_pytriton.libs'}:{program / 'lib'}",
        "PYTHONPATH": str(libraries),
        "PATH": f"{triton_env.parent}:{os.environ['PATH']}",
    }
    server = Triton(command, folder, port, environment)
    server.revive()
    yield server
    server.end()


MLSERVER_DOUBLE = """
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Double(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        if x.flat[0] == -1:
            raise ValueError("this model's own fault")
        if x.flat[0] == -2:
            raise MLServerError("rows out of season", status_code=422)
        y = NumpyCodec.encode_output("y", 2 * x)
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=[y])
"""


@pytest.fixture(scope="session")
def mlserver(mlserver_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`grpc://HOST:PORT` of an MLServer with `double`, which fails where the first number is -1 or -2."""
    folder = tmp_path_factory.mktemp("mlserver")
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    tensor = {"datatype": "FP32", "shape": [-1, 3]}
    model = {
        "name": "double",
        "implementation": "double.Double",
        "parameters": {"version": "1"},
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "double.py").write_text(MLSERVER_DOUBLE)
    with server_process([mlserver_env.with_name("mlserver"), "start", folder], folder, ready(port)):
        yield f"grpc://127.0.0.1:{port}"


KSERVE = """
import sys
import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer


class Double(Model):
    def __init__(self):
        super().__init__("double")
        self.ready = True

    async def get_input_types(self):
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]

    async def get_output_types(self):
        return [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]

    def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        if x.flat[0] == -1:
            raise ValueError("this model's own fault")
        y = InferOutput("y", list(x.shape), "FP32")
        y.set_data_from_numpy(2 * x, binary_data=True)
        return InferResponse(payload.id, "double", [y])


ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_grpc=True, workers=1).start([Double()])
"""


@pytest.fixture(scope="session")
def kserve(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`grpc://HOST:PORT` of a KServe model server with `double`."""
    folder = tmp_path_factory.mktemp("kserve")
    (folder / "server.py").write_text(KSERVE)
    port = free_port()
    command = [peer_python("kserve"), folder / "server.py", str(free_port()), str(port)]
    with server_process(command, folder, ready(port)):
        yield f"grpc://127.0.0.1:{port}"


def ready(port: int) -> Callable[[], bool]:
    """Whether `double` is."""
    asked = message("inference.ModelReadyRequest")(name="double").SerializeToString()

    def said() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, contextlib.suppress(grpc.RpcError):
            body = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")(asked, timeout=2)
            return bool(message("inference.ModelReadyResponse").FromString(body).ready)
        return False

    return said
