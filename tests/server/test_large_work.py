"""V06: small requests that claim, or ask for, very much. 400 at once, the limit named, nothing allocated by claim."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.mlp import MLP
from tests.server.process import MIB, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
MEMORY = 8.0
"""MiB that the whole process may grow by, and 16 bytes for each byte sent; the least of the claims is 12 MB."""
IMAGE = [1, 3, 10**5, 10**5]


@pytest.fixture(scope="module")
def server(lab: str) -> Iterator[Server]:
    made = Server("any=echo:", "rows=echo:?x=FP32[-1,3]", f"three={lab}three", patience=20.0)
    made.ask("/v2/models/rows/infer", infer([1, 3], [1, 2, 3]), {})
    yield made
    made.close()


def infer(shape: list[int], data: list[float], **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}], **more}).encode()


def binary(shape: list[int], claimed: int, sent: int) -> tuple[bytes, dict[str, str]]:
    x = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": claimed}}
    head = json.dumps({"inputs": [x]}).encode()
    return head + bytes(sent), {"Inference-Header-Content-Length": str(len(head))}


def npy(shape: tuple[int, ...]) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(12)


def refused(server: Server, path: str, body: bytes, headers: dict[str, str] | None = None) -> str:
    """The message of an answer with 400 or 413 that comes at once and for which the process doesn't grow."""
    before, begun = server.memory(), time.monotonic()
    status, told, answer = server.ask(path, body, headers or {})
    assert status in (400, 413), (status, answer[:200])
    assert time.monotonic() - begun < 2
    assert server.memory() - before < MEMORY + 16 * len(body) / MIB
    assert told["content-type"] == "application/json"
    error = json.loads(answer)["error"]
    return str(error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize("model", ["any", "rows"])
@pytest.mark.parametrize("shape", [[10**6, 3], IMAGE, [10**6], [2**62, 3]], ids=str)
def test_a_shape_that_the_data_dont_fill_is_refused(server: Server, model: str, shape: list[int]) -> None:
    path = f"/v2/models/{model}/infer"
    assert "'x'" in refused(server, path, infer(shape, [1.0, 2.0, 3.0]))
    claimed = min(4 * int(np.prod(np.array(shape, object))), 2**62)
    for sent in (12, 4096):
        assert refused(server, path, *binary(shape, claimed, sent))
        assert refused(server, path, *binary(shape, sent, sent))


def test_an_array_of_numpy_that_claims_more_than_it_has_is_refused(server: Server) -> None:
    headers = {"Content-Type": "application/x-npy", "X-Amzn-SageMaker-Target-Model": "rows"}
    for shape in ((10**6, 3), (10**5, 10**5), (2**62, 3)):
        body = npy(shape)
        before = server.memory()
        status, _, answer = server.ask("/invocations", body, headers)
        assert status == 400, answer
        assert server.memory() - before < MEMORY


def test_a_model_that_declares_its_rows_is_given_no_more(server: Server) -> None:
    def rows(count: int) -> bytes:
        return infer([count, 2], [0.0] * 2 * count)

    assert server.ask("/v2/models/three/infer", rows(3), {})[0] == 200
    told = refused(server, "/v2/models/three/infer", rows(4))
    assert told == "the request has 4 rows, and model 'lab' takes 3 at once. Send fewer rows"
    refused(server, "/v1/models/three:predict", json.dumps({"instances": [[0, 0]] * 4}).encode())


def test_no_more_classes_come_than_there_are(server: Server) -> None:
    before = server.memory()
    for wanted in (10**9, 10**30):
        wish = [{"name": "x", "parameters": {"classification": wanted}}]
        status, _, answer = server.ask("/v2/models/rows/infer", infer([1, 3], [1, 2, 3], outputs=wish), {})
        assert (status, len(json.loads(answer)["outputs"][0]["data"])) == (200, 3)
    assert server.memory() - before < MEMORY


def test_so_many_texts_and_no_more_are_embedded_in_one_request(server: Server) -> None:
    def asked(count: int) -> bytes:
        return json.dumps({"model": "any", "input": ["a"] * count}).encode()

    assert server.ask("/v1/embeddings", asked(2048), {})[0] == 200
    assert refused(server, "/v1/embeddings", asked(2049)) == "input has 2049 texts; send at most 2048 at once"
    assert refused(server, "/v1/embeddings", asked(10**6)) == "input has 1000000 texts; send at most 2048 at once"


def test_our_own_client_sends_more_texts_in_several_requests(server: Server, load: Any) -> None:
    texts = [f"{'a' * (number % 7)}z {'b' * (number % 5)}y" for number in range(5000)]
    with load(f"openai+http://127.0.0.1:{server.port}/v1#any") as model:
        found = model.embed(texts)
        assert found.usage.input_tokens == 10_000
        for place in (0, 1, 2047, 2048, 4095, 4096, 4999):
            assert np.array_equal(found.array[place], model.embed(texts[place]).array[0])


# ---------------------------------------------------------------- models with weights
@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`text`, a language model with a context of 64 bytes, and `line`, which can be explained."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("models")
    small = {"width": 16, "layers": 1, "heads": 2, "context": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder.parent / "home"))
        with aiaas.create(f"torch:{folder / 'text'}", architecture="transformer", config=small, tokenizer="bytes"):
            pass
        aiaas.save(MLP(3, 2), folder / "line", example=np.zeros((1, 3), np.float32))
    made = Server(str(folder), patience=20.0)
    said = {"model": "text", "prompt": "ab", "max_tokens": 2, "top_k": 3, "logprobs": 1}
    assert made.ask("/v1/completions", json.dumps(said).encode(), {})[0] == 200
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_tokens": 10**9}, "context of 64"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"n": 10**6}, "from 1 to 128"),
        ({"logprobs": 257}, "from 0 to 20"),
        ({"prompt": "a" * 10**6}, "context is 64"),
        ({"prompt": ["a"] * 10**5}, "at most 2048"),
        ({"top_k": 10**10}, "top_k"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_language_model_isnt_asked_beyond_its_limits(speaking: Server, asked: dict[str, Any], told: str) -> None:
    body = json.dumps({"model": "text", "prompt": "ab", **asked}).encode()
    assert told in refused(speaking, "/v1/completions", body)
    if asked.keys() & {"max_tokens", "top_k"}:
        parameters = {"text_input": "ab", "parameters": asked}
        assert told in refused(speaking, "/v2/models/text/generate", json.dumps(parameters).encode())


@pytest.mark.slow
def test_a_choice_among_all_tokens_is_one_among_those_there_are(speaking: Server) -> None:
    for most in (257, 2**31 - 1):
        before = speaking.memory()
        said = {"model": "text", "prompt": "ab", "max_tokens": 2, "top_k": most, "temperature": 1, "seed": 1}
        assert speaking.ask("/v1/completions", json.dumps(said).encode(), {})[0] == 200
        assert speaking.memory() - before < MEMORY


@pytest.mark.slow
def test_an_explanation_takes_no_more_rows_and_steps_than_we_say(speaking: Server) -> None:
    def asked(count: int, **more: Any) -> bytes:
        x = {"name": "features", "shape": [count, 3], "datatype": "FP32", "data": [0.5] * 3 * count}
        return json.dumps({"inputs": [x], "parameters": {"method": "integrated_gradients", **more}}).encode()

    assert "At most 64" in refused(speaking, "/v2/models/line/explain", asked(65))
    assert speaking.ask("/v2/models/line/explain", asked(1), {})[0] == 200
    begun = time.monotonic()
    answers = [speaking.ask("/v2/models/line/explain", asked(1, **more), {})[::2] for more in ({}, {"n_steps": 10**9})]
    assert answers[0] == answers[1]  # nobody is asked how many steps he wants
    assert time.monotonic() - begun < 5
