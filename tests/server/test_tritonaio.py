"""The real tritonclient.http.aio against this server: many calls at once, packing, generated text, errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread

pytestmark = [pytest.mark.slow, pytest.mark.peer]

PROGRAM = """
import asyncio, json, sys
import aiohttp
import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

told = {}


async def main():
    async with triton.InferenceServerClient(sys.argv[1]) as client:
        async def infer(array, binary=True, wish=None, **options):
            given = triton.InferInput("x", list(array.shape), "FP32")
            given.set_data_from_numpy(array, binary_data=binary)
            outputs = None if wish is None else [triton.InferRequestedOutput("x", **wish)]
            return (await client.infer("one", [given], outputs=outputs, **options)).as_numpy("x")

        told["live"], told["ready"] = await client.is_server_live(), await client.is_server_ready()
        told["metadata"] = await client.get_model_metadata("one")
        told["config"] = await client.get_model_config("one")
        told["index"] = await client.get_model_repository_index()
        told["statistics"] = await client.get_inference_statistics("one")
        arrays = [np.full((k % 5 + 1, 3), k, np.float32) for k in range(100)]
        answers = await asyncio.gather(*(infer(array) for array in arrays))
        told["at once"] = all(np.array_equal(one, other) for one, other in zip(arrays, answers))
        many = np.arange(3000, dtype=np.float32).reshape(-1, 3)
        told["packed"] = []
        for there in (None, "gzip", "deflate"):
            for back in (None, "gzip", "deflate"):
                for binary in (True, False):
                    came = await infer(many, binary, {"binary_data": binary}, request_compression_algorithm=there,
                                       response_compression_algorithm=back)
                    told["packed"].append(bool(np.array_equal(came, many)))
        told["classes"] = (await infer(many[:1], True, {"class_count": 1})).tolist()[0][0].decode()
        told["errors"] = {}
        for name, call in {
            "shape": lambda: infer(many[:, :2].copy()),
            "unload": lambda: client.unload_model("one"),
            "shared memory": lambda: client.get_system_shared_memory_status(),
            "trace": lambda: client.get_trace_settings(),
        }.items():
            try:
                await call()
            except InferenceServerException as raised:
                told["errors"][name] = [raised.status(), raised.message()]


asyncio.run(main())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(triton_env: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    program = tmp_path_factory.mktemp("triton") / "program.py"
    program.write_text(PROGRAM)
    with serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as url:
        command = [str(triton_env), str(program), url.removeprefix("http://")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_what_there_is(told: dict[str, Any]) -> None:
    assert told["live"] is told["ready"] is True
    assert told["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert told["config"]["input"][0]["dims"] == [3]
    assert told["index"] == [{"name": "one", "version": "1", "state": "READY"}]
    assert told["statistics"]["model_stats"][0]["name"] == "one"


def test_calls_at_once_and_packed_ones(told: dict[str, Any]) -> None:
    assert told["at once"] is True
    assert told["packed"] == [True] * 18
    assert told["classes"] == "2.0:2"


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("shape", "400", "shape"), ("unload", "403", "management"), ("shared memory", "404", ""), ("trace", "404", "")],
)
def test_errors_can_be_read(told: dict[str, Any], name: str, status: str, says: str) -> None:
    assert told["errors"][name][0] == status
    assert says in told["errors"][name][1]
    assert "exception occurred in the client" not in told["errors"][name][1]
