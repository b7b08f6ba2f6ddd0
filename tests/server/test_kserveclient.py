"""KServe's own REST client, both protocols, against this server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread

pytestmark = [pytest.mark.slow, pytest.mark.peer]

PROGRAM = """
import asyncio, json, sys
import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = sys.argv[1]
told = {}


async def error(call):
    try:
        await call
    except httpx.HTTPStatusError as raised:
        return [raised.response.status_code, str(raised)]


async def first():
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        told["live"] = await client.is_server_live(URL)
        told["ready"] = await client.is_model_ready(URL, "one")
        told["predict"] = await client.infer(URL, {"instances": [[1, 2, 3]]}, model_name="one")
        told["several"] = await asyncio.gather(
            *(client.infer(URL, {"instances": [[k, k, k]]}, model_name="one") for k in range(20)))
        told["refused"] = await error(client.infer(URL, {"instances": [[1]]}, model_name="one"))
        told["explained"] = await client.explain(URL, "one", {"instances": [[1, 2, 3]]})
        told["explain"] = await error(client.explain(URL, "any", {"instances": [[1, 2, 3]]}))
        told["unknown"] = await error(client.is_model_ready(URL, "none"))


async def second():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        told["live2"], told["ready2"] = await client.is_server_live(URL), await client.is_server_ready(URL)
        told["model2"] = [await client.is_model_ready(URL, name) for name in ("one", "none")]
        told["infer2"] = []
        for binary in (True, False):
            for wish in (None, True, False):
                given = InferInput("x", list(x.shape), "FP32")
                given.set_data_from_numpy(x, binary_data=binary)
                outputs = None if wish is None else [RequestedOutput("x", {"binary_data": wish})]
                request = InferRequest("one", [given], request_outputs=outputs, parameters={"binary_data_output": True})
                answer = await client.infer(URL, request, model_name="one")
                told["infer2"].append(answer.outputs[0].as_numpy().tolist())
        half = InferInput("h", [1, 2], "FP16")
        half.set_data_from_numpy(np.array([[0.5, 65504]], np.float16), binary_data=True)
        asked = InferRequest("any", [half], request_outputs=[RequestedOutput("h", {"binary_data": True})])
        told["half"] = (await client.infer(URL, asked, model_name="any")).outputs[0].as_numpy().tolist()
        odd = InferInput("x", [1, 1], "FP32", [1.0])
        told["refused2"] = await error(client.infer(URL, InferRequest("one", [odd]), model_name="one"))


asyncio.run(first())
asyncio.run(second())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    program = tmp_path_factory.mktemp("kserve") / "program.py"
    program.write_text(PROGRAM)
    with serve_in_thread(["any=echo:", "one=echo:?x=FP32[-1,3]"]) as url:
        command = [str(peer_python("kserve")), str(program), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_protocol(told: dict[str, Any]) -> None:
    assert told["live"] is told["ready"] is True
    assert told["predict"] == {"predictions": [[1, 2, 3]]}
    assert [answer["predictions"] for answer in told["several"]] == [[[k, k, k]] for k in range(20)]


def test_explanations(told: dict[str, Any]) -> None:
    assert told["explained"] == {
        "explanations": [[0, 0, 3]],
        "method": "shap",
        "target": [2],
        "completeness_error": 0,
    }


def test_the_second_protocol(told: dict[str, Any]) -> None:
    assert told["live2"] is told["ready2"] is True
    assert told["model2"] == [True, False]
    assert told["infer2"] == [[[0, 1, 2], [3, 4, 5]]] * 6
    assert told["half"] == [[0.5, 65504]]


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("refused", 400, "shape"), ("explain", 400, "explain"), ("unknown", 404, "none"), ("refused2", 400, "shape")],
)
def test_errors_can_be_read(told: dict[str, Any], name: str, status: int, says: str) -> None:
    assert told[name][0] == status
    assert says in told[name][1]
