"""ModelStreamInfer of `aiaas serve --grpc-port`, asked by hand and by Triton's own clients."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiaas_grpc import streaming
from aiaas_grpc.codec import encode_request
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import SERVICE, message

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import Tensor
from tests import talker as talking
from tests.stopwatch import Stopwatch

ONE = ("e=echo:?x=FP32[-1,3]",)


class Stream:
    """One stream: `ask` sends a request, `next` gives the next response."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address.removeprefix("grpc://"))
        self._asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call: Any = self.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(self._asked.get, None))

    def ask(self, model: str, id: str, inputs: Any, **parameters: Any) -> None:
        outputs = parameters.pop("outputs", ())
        self.send(b"".join(encode_request(model, "", inputs, outputs=outputs, id=id, parameters=parameters)))

    def tensor(self, id: str, *shape: int) -> None:
        self.ask("e", id, {"x": Tensor("FP32", np.full(shape or (1, 3), float(id), np.float32))})

    def text(self, id: str, words: str, **inputs: Any) -> None:
        self.ask("t", id, {"text_input": text(words), **inputs})

    def send(self, body: bytes | None) -> None:
        """Send it; None says that there is no more."""
        self._asked.put(body)

    def next(self) -> Any:
        return message("inference.ModelStreamInferResponse").FromString(next(self.call))

    def rest(self) -> list[Any]:
        return [message("inference.ModelStreamInferResponse").FromString(body) for body in self.call]

    def close(self) -> None:
        self.call.cancel()
        self.send(None)
        self.channel.close()


def text(words: str | bytes, shape: tuple[int, ...] = (1,)) -> Tensor:
    array = np.empty(1, object)
    array[0] = words if isinstance(words, bytes) else words.encode()
    return Tensor("BYTES", array.reshape(shape))


def said(response: Any) -> str:
    """Its text_output."""
    names = [output.name for output in response.infer_response.outputs]
    found: str = response.infer_response.raw_output_contents[names.index("text_output")][4:].decode()
    return found


def final(response: Any) -> bool:
    return bool(response.infer_response.parameters["triton_final_response"].bool_param)


@pytest.fixture
def stream(serving: Callable[..., str], talker: str) -> Iterator[Callable[..., Stream]]:
    """Starts a server and opens a stream to it; a model `t` speaks, `e` gives its input back."""
    made: list[Stream] = []

    def begin(*targets: str, **options: Any) -> Stream:
        made.append(Stream(serving(*(targets or (*ONE, f"t={talker}")), **options)))
        return made[-1]

    yield begin
    for one in made:
        one.close()


# ---------------------------------------------------------------- many requests
def test_each_request_is_answered_with_its_id(stream: Any) -> None:
    asking = stream()
    for id in range(100):  # more than are taken at once
        asking.tensor(str(id))
    asking.send(None)
    responses = asking.rest()
    assert sorted(int(one.infer_response.id) for one in responses) == list(range(100))
    for one in responses:
        assert np.frombuffer(one.infer_response.raw_output_contents[0], np.float32)[0] == float(one.infer_response.id)
        assert final(one)
    assert asking.call.code() is grpc.StatusCode.OK


def test_what_is_done_first_is_told_first(stream: Any) -> None:
    asking = stream()
    asking.text("slow", "wait:0.5 done", stream=Tensor("BOOL", np.array([False])))
    asking.tensor("1")
    asking.send(None)
    assert [one.infer_response.id for one in asking.rest()] == ["1", "slow"]


def test_an_error_doesnt_end_the_stream(stream: Any) -> None:
    asking = stream()
    asking.tensor("1", 1, 4)
    asking.ask("nope", "2", {"x": text("x")})
    asking.text("3", "fail", stream=Tensor("BOOL", np.array([False])))
    asking.send(b"\xff\xff")
    asking.tensor("5")
    asking.send(None)
    told = {one.infer_response.id: one for one in asking.rest()}
    assert "input 'x'" in told["1"].error_message
    assert told["2"].error_message == "there is no model 'nope'"
    assert told["2"].infer_response.model_name == "nope"
    assert told["2"].infer_response.parameters["status"].int64_param == 404
    assert "raised RuntimeError" in told["3"].error_message
    assert "ends within" in told[""].error_message
    assert not told["5"].error_message
    assert asking.call.code() is grpc.StatusCode.OK


# ---------------------------------------------------------------- text
def test_a_model_that_speaks_says_what_it_takes(serving: Any, talker: str) -> None:
    with aiaas.load(f"{serving(f't={talker}')}/models/t", timeout=10) as model:
        info = model.info()
    assert {spec.name: spec.datatype for spec in info.inputs} == {
        "text_input": "BYTES",
        "stream": "BOOL",
        "sampling_parameters": "BYTES",
    }
    assert [spec.name for spec in info.outputs][:2] == ["text_output", "finish_reason"]
    assert info.verbs == {"generate", "stream"}


def test_a_text_is_answered_piece_by_piece(stream: Any) -> None:
    asking = stream()
    asking.text("7", "one two three")
    asking.send(None)
    *pieces, last = asking.rest()
    assert [said(one) for one in pieces] == ["one ", "two ", "three "]
    assert not any(map(final, pieces))
    assert final(last)
    assert said(last) == ""
    assert {one.infer_response.id for one in (*pieces, last)} == {"7"}
    assert [output.name for output in last.infer_response.outputs] == ["text_output", "finish_reason"]
    assert last.infer_response.model_version == "7"


def test_a_text_may_be_wanted_whole(stream: Any) -> None:
    asking = stream("t=echo:")
    asking.text("1", "one two three", stream=Tensor("BOOL", np.array([False])))
    asking.text(
        "2", "one two three", stream=Tensor("BOOL", np.array([False])), sampling_parameters=text('{"stop": "w"}')
    )
    asking.ask("t", "3", {"text_input": text("one two three", (1, 1))}, max_tokens=1, outputs=["text_output"])
    asking.send(None)
    told: dict[str, str] = {}
    for one in asking.rest():
        told[one.infer_response.id] = told.get(one.infer_response.id, "") + said(one)
    assert told == {"1": "one two three", "2": "one t", "3": "one"}


@pytest.mark.parametrize(
    ("inputs", "parameters", "words"),
    [
        ({"text_input": text("go"), "x": text("x")}, {}, "no input 'x'"),
        ({"text_input": text(b"\xff")}, {}, "text_input isn't UTF-8"),
        ({"text_input": Tensor("FP32", np.zeros(1, np.float32))}, {}, "text_input is FP32"),
        ({"text_input": text("go"), "stream": Tensor("BOOL", np.array([True, True]))}, {}, "stream is BOOL of shape"),
        ({"text_input": text("go"), "sampling_parameters": text("[]")}, {}, "isn't a JSON object"),
        ({"text_input": text("go"), "sampling_parameters": text("{")}, {}, "isn't a JSON object"),
        ({"text_input": text("go"), "sampling_parameters": text('{"heat": 1}')}, {}, "heat"),
        ({"text_input": text("go"), "sampling_parameters": text('{"top_k": "x"}')}, {}, "top_k is 'x'"),
        ({"text_input": text("go")}, {"temperature": 9}, "temperature is 9"),
        ({"text_input": text("go")}, {"outputs": ["y"]}, "no output 'y'"),
        ({"text_input": text("go")}, {"timeout": -1}, "microseconds"),
    ],
)
def test_who_asks_for_text_wrongly_is_told(stream: Any, inputs: Any, parameters: Any, words: str) -> None:
    asking = stream()
    asking.ask("t", "1", inputs, **parameters)
    asking.send(None)
    (told,) = asking.rest()
    assert words in told.error_message
    assert told.infer_response.parameters["status"].int64_param == 400


def test_what_fails_midway_ends_its_request_alone(stream: Any, serving: Any, talker: str, load: Any) -> None:
    asking = stream()
    asking.text("1", "so far fail")
    asking.tensor("2")
    asking.send(None)
    mine = [one for one in asking.rest() if one.infer_response.id == "1"]
    assert [said(one) for one in mine[:-1]] == ["so ", "far "]
    assert "raised RuntimeError" in mine[-1].error_message
    with load(f"{serving(f't={talker}')}/models/t", timeout=10) as model:
        with pytest.raises(aiaas.StreamInterruptedError, match="raised RuntimeError") as caught:
            model.stream("so far fail").result()
        assert caught.value.partial == "so far "
        with pytest.raises(aiaas.RateLimitedError, match="too much to say"):  # before the first piece
            model.with_options(retry=None).stream("busy").result()


def test_a_request_may_say_how_long_it_waits(stream: Any) -> None:
    asking = stream()
    watch = Stopwatch()
    asking.ask("t", "1", {"text_input": text("forever")}, timeout=300_000)
    asking.send(None)
    *_, last = asking.rest()
    assert "deadline" in last.error_message or "out of time" in last.error_message
    assert watch.took() < 3


# ---------------------------------------------------------------- leaving, and room
def test_who_leaves_calls_the_work_off(stream: Any) -> None:
    asking = stream()
    asking.text("1", "forever")
    asking.next()
    asking.call.cancel()
    time.sleep(0.3)
    made = len(talking.STEPS)
    time.sleep(0.3)
    assert len(talking.STEPS) == made


def test_a_client_that_takes_nothing_holds_the_work_up(stream: Any) -> None:
    """A mebibyte of text is far more than gRPC's own buffers hold."""
    asking = stream()
    before = len(talking.STEPS)
    asking.text("1", " ".join(["flood"] * 16))
    time.sleep(1)
    assert len(talking.STEPS) - before < 16 * 64 / 2
    asking.send(None)
    assert len(asking.rest()) == 16 * 64 + 1


def test_a_client_that_takes_nothing_at_last_counts_as_gone(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STALLED", 0.3)
    asking = stream()
    asking.text("1", " ".join(["flood"] * 16))
    time.sleep(1)
    with pytest.raises(grpc.RpcError):
        asking.rest()
    assert "took nothing" in asking.call.details()


def test_so_many_requests_of_one_stream_run_at_once(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "IN_FLIGHT", 2)
    asking = stream()
    whole = {"stream": Tensor("BOOL", np.array([False]))}
    asking.text("1", "wait:0.4", **whole)
    asking.text("2", "wait:0.4", **whole)
    asking.tensor("3")  # quick, and yet not looked at before one of the others is done
    asking.send(None)
    assert asking.next().infer_response.id in ("1", "2")


def test_each_request_has_a_place_in_its_models_queue(stream: Any) -> None:
    asking = stream(queue=1)
    asking.text("1", "forever")
    asking.next()
    asking.text("2", "forever")
    told = next(one for one in iter(asking.next, None) if one.infer_response.id == "2")
    assert "overloaded" in told.error_message
    assert told.infer_response.parameters["status"].int64_param == 503


def test_a_server_that_ends_answers_what_it_has_read(talker: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serve_in_thread([f"t={talker}"], grpc_port=port, grace=20):
        idle, busy = (Stream(f"grpc://127.0.0.1:{port}") for _ in range(2))
        for one in (idle, busy):
            one.text("0", "hello")
            assert said(one.next()) == "hello "
            assert final(one.next())
        busy.text("1", "on wait:0.5 and off")
        assert said(busy.next()) == "on "
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert [said(busy.next()) for _ in range(3)] == ["and ", "off ", ""]
    for one in (idle, busy):
        with pytest.raises(grpc.RpcError):
            one.rest()
        assert "shutting down" in one.call.details()
        one.close()


# ---------------------------------------------------------------- Triton's clients
TRITONCLIENT = """
import asyncio, json, queue, sys
import numpy as np
import tritonclient.grpc as plain
import tritonclient.grpc.aio as awaited

address = sys.argv[1]
told = {"plain": [], "awaited": [], "errors": []}

def text(module, words, stream=None):
    given = [module.InferInput("text_input", [1], "BYTES")]
    given[0].set_data_from_numpy(np.array([words.encode()], object))
    if stream is not None:
        given.append(module.InferInput("stream", [1], "BOOL"))
        given[-1].set_data_from_numpy(np.array([stream]))
    return given

def tensor(module, value):
    x = module.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.full((1, 3), value, np.float32))
    return [x]

def seen(result, error):
    if error is not None:
        return [result.get_response().id if result else "", str(error)]
    response = result.get_response()
    name = response.outputs[0].name if response.outputs else None
    value = result.as_numpy(name).ravel()[0] if name else None
    value = value.decode() if isinstance(value, bytes) else None if value is None else float(value)
    return [response.id, value, response.parameters["triton_final_response"].bool_param]

client, came = plain.InferenceServerClient(address), queue.Queue()
client.start_stream(lambda result, error: came.put(seen(result, error)))
client.async_stream_infer("t", text(plain, "one two"), request_id="1", enable_empty_final_response=True)
told["plain"] += [came.get(timeout=10) for _ in range(3)]
client.async_stream_infer("e", tensor(plain, 4), request_id="2")
told["plain"].append(came.get(timeout=10))
client.async_stream_infer("nope", tensor(plain, 4), request_id="3")
told["errors"].append(came.get(timeout=10))
client.async_stream_infer("t", text(plain, "all of it", False), request_id="4")
told["plain"].append(came.get(timeout=10))
client.stop_stream()
whole = client.infer("t", text(plain, "in a call of its own"))
told["whole"] = whole.as_numpy("text_output")[0].decode()
client.close()

async def main():
    async with awaited.InferenceServerClient(address) as client:
        async def asked():
            for id in ("a", "b"):
                yield {"model_name": "t", "inputs": text(awaited, f"one {id}"), "request_id": id}
            yield {"model_name": "nope", "inputs": text(awaited, "x"), "request_id": "c"}
        async for result, error in client.stream_infer(asked()):
            told["awaited" if error is None else "errors"].append(seen(result, error))

asyncio.run(main())
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.peer
def test_tritonclient_streams(triton_env: Path, serving: Callable[..., str], talker: str) -> None:
    address = serving(*ONE, f"t={talker}").removeprefix("grpc://")
    done = subprocess.run(
        [triton_env, "-c", TRITONCLIENT, address],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    pieces = [["1", "one ", False], ["1", "two ", False], ["1", "", True]]
    assert told["plain"] == [*pieces, ["2", 4.0, True], ["4", "all of it ", True]]
    assert told["whole"] == "in a call of its own "
    for id in ("a", "b"):
        mine = [one for one in told["awaited"] if one[0] == id]
        assert mine == [[id, "one ", False], [id, f"{id} ", False], [id, "", True]]
    assert ["there is no model 'nope'" in words for _, words in told["errors"]] == [True, True]
