"""What all tests share: an isolated environment, asyncio, and strangers' servers (marker `peer`)."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.streams import AsyncTextStream
from aiaas_sdk.testing.processes import answers, free_port, server_process

ROOT = Path(__file__).parent.parent

DOUBLE = """
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


@pytest.fixture(autouse=True)
def _isolated_environment(isolated: None) -> None:
    """Every test runs with the environment of the fixture `isolated`."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run once, on asyncio, whatever else is installed."""
    return "asyncio"


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a language model that does what it is told; see `tests/talker.py`. It is installed for this."""
    folder = tmp_path_factory.mktemp("talker")
    installed = folder / "aiaas_talker-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-talker\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[aiaas_sdk.backends]\ntalker = tests.talker\n")
    sys.path.insert(0, str(folder))
    yield "talker:"
    sys.path.remove(str(folder))


# ---------------------------------------------------------------- both faces
END = object()


class Awaited:
    """An AsyncModel with the plain face, so that one test serves both."""

    def __init__(self, model: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._model, self._loop = model, loop

    def __getattr__(self, name: str) -> Any:
        if name == "close":
            name = "aclose"
        method = getattr(self._model, name)

        def call(*args: Any, **options: Any) -> Any:
            outcome = method(*args, **options)
            if isinstance(outcome, aiaas.AsyncModel):
                return Awaited(outcome, self._loop)
            if isinstance(outcome, AsyncTextStream):
                return AwaitedStream(outcome, self._loop)
            if hasattr(outcome, "__anext__"):
                return self._items(outcome)
            found = self._loop.run_until_complete(outcome) if inspect.isawaitable(outcome) else outcome
            if isinstance(found, aiaas.AsyncModel):
                return Awaited(found, self._loop)
            return AwaitedRun(found, self._loop) if isinstance(found, aiaas.AsyncTrainingRun) else found

        return call

    def _items(self, items: Any) -> Iterator[Any]:
        """An async iterator as a plain one; the first step is taken at once, as the plain face does."""
        first = self._loop.run_until_complete(anext(items, END))

        def rest() -> Iterator[Any]:
            item = first
            try:
                while item is not END:
                    yield item
                    item = self._loop.run_until_complete(anext(items, END))
            finally:
                if not self._loop.is_closed():  # a test that kept it to its end has nobody left to wait for
                    self._loop.run_until_complete(items.aclose())

        return rest()

    def __enter__(self) -> Awaited:
        self._loop.run_until_complete(self._model.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.run_until_complete(self._model.__aexit__(*exc))


class AwaitedRun(Awaited):
    """An AsyncTrainingRun with the plain face."""

    def __getattr__(self, name: str) -> Any:
        if name in ("id", "status", "history"):
            return getattr(self._model, name)
        return super().__getattr__(name)


class AwaitedStream:
    """An AsyncTextStream with the plain face."""

    def __init__(self, stream: AsyncTextStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop

    @property
    def text(self) -> str:
        return self._stream.text

    def __iter__(self) -> AwaitedStream:
        return self

    def __next__(self) -> Any:
        item = self._loop.run_until_complete(anext(self._stream, END))
        if item is END:
            raise StopIteration
        return item

    def result(self) -> Any:
        return self._loop.run_until_complete(self._stream.result())

    def close(self) -> None:
        self._loop.run_until_complete(self._stream.aclose())

    def __enter__(self) -> AwaitedStream:
        self._loop.run_until_complete(self._stream.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.run_until_complete(self._stream.__aexit__(*exc))


@pytest.fixture(params=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Iterator[Any]:
    """`load`, and `load_async` with its face made plain: each test that takes it runs for both."""
    if request.param == "sync":
        yield aiaas.load
        return
    loop = asyncio.new_event_loop()
    yield lambda address, **options: Awaited(aiaas.load_async(address, **options), loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


# ---------------------------------------------------------------- environments of strangers
def _peer(name: str) -> Path:
    """The python of .peers/NAME, made at first use; the lock keeps two test runs from making it together."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the peers' wheels are for Linux on x86-64")
    (ROOT / ".peers").mkdir(exist_ok=True)
    with (ROOT / ".peers" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["env", f"PYTHON={sys.executable}", str(ROOT / "scripts" / "peers.sh"), name]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert made.returncode == 0, f"scripts/peers.sh {name}:\n{made.stdout[-4000:]}"
    return ROOT / ".peers" / name / "bin" / "python"


@pytest.fixture(scope="session")
def peer_python() -> Callable[[str], Path]:
    """Gives the python of a peer's environment, by the name that scripts/peers.sh has for it."""
    return _peer


@pytest.fixture(scope="session")
def triton_env() -> Path:
    """The python that has nvidia-pytriton (with tritonserver) and tritonclient.http."""
    return _peer("triton")


@pytest.fixture(scope="session")
def mlserver_env() -> Path:
    """The python that has MLServer."""
    return _peer("mlserver")


@pytest.fixture(scope="session")
def transformers_env() -> Path:
    """The python that has transformers and torch."""
    return _peer("transformers")


# ---------------------------------------------------------------- a real MLServer
@pytest.fixture(scope="session")
def mlserver(mlserver_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of an MLServer on 127.0.0.1 with the model `double`: x FP32 [-1,3] -> y = 2x."""
    folder = tmp_path_factory.mktemp("mlserver")
    port = _configure_mlserver(folder)
    url = f"http://127.0.0.1:{port}"
    command = [mlserver_env.with_name("mlserver"), "start", folder]
    with server_process(command, folder, answers(f"{url}/v2/models/double/ready")):
        yield url


def _configure_mlserver(folder: Path) -> int:
    """Write the server's settings and its one model into `folder`; give the HTTP port."""
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,  # else it opens a third port
        "parallel_workers": 0,  # the model in the server's own process: quick to start, one pid to end
        "debug": False,
    }
    model = {
        "name": "double",
        "implementation": "double.Double",
        "parameters": {"version": "1"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "double.py").write_text(DOUBLE)
    return port
