"""`aiaas serve --grpc-port`: the same models over gRPC."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import HEALTH, SERVICE, message

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import DATATYPES
from aiaas_sdk.testing.conformance import Conformance, Subject

X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Caller:
    """Calls methods with messages, as raw as gRPC gives them."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address.removeprefix("grpc://"))

    def __call__(self, method: str, fields: Any = None, service: str = SERVICE, **options: Any) -> Any:
        package = service.rpartition(".")[0]
        kind = "HealthCheck" if service == HEALTH else method
        asked = fields if isinstance(fields, bytes) else self.request(package, kind, fields).SerializeToString()
        body = self.channel.unary_unary(f"/{service}/{method}")(asked, timeout=10, **options)
        return message(f"{package}.{kind}Response").FromString(body)

    def request(self, package: str, kind: str, fields: Any) -> Any:
        return message(f"{package}.{kind}Request")(**(fields or {}))

    def refused(self, *arguments: Any, **options: Any) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self(*arguments, **options)
        return caught.value


@pytest.fixture
def caller(serving: Any) -> Any:
    made: list[Caller] = []

    def make(*targets: str, **options: Any) -> Caller:
        made.append(Caller(serving(*targets, **options)))
        return made[-1]

    yield make
    for one in made:
        one.channel.close()


def infer(**change: Any) -> Any:
    made = message("inference.ModelInferRequest")(model_name="e", id="7")
    given = made.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    given.contents.fp32_contents.extend(change.pop("values", [1, 2, 3]))
    for name, value in change.items():
        setattr(made, name, value)
    return made


# ---------------------------------------------------------------- methods
def test_the_server_and_its_models_say_what_they_are(caller: Any) -> None:
    call = caller("e=echo:?x=FP32[-1,3]")
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ServerMetadata").name == "aiaas"
    assert call("ModelReady", {"name": "e"}).ready
    told = call("ModelMetadata", {"name": "e"})
    assert (told.name, list(told.versions), told.platform) == ("e", ["1"], "echo")
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in told.inputs] == [("x", "FP32", [-1, 3])]


def test_typed_contents_are_taken_and_raw_ones_given(caller: Any) -> None:
    answer = caller("e=echo:?x=FP32[-1,3]")("ModelInfer", infer().SerializeToString())
    assert (answer.model_name, answer.model_version, answer.id) == ("e", "1", "7")
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1, 2, 3]
    assert not answer.outputs[0].contents.fp32_contents


@pytest.mark.parametrize(
    ("method", "fields", "code", "words"),
    [
        ("ModelMetadata", {"name": "nope"}, "NOT_FOUND", "no model 'nope'"),
        ("ModelMetadata", {"name": "e", "version": "9"}, "NOT_FOUND", "no version '9'"),
        ("ModelReady", {"name": "nope"}, "NOT_FOUND", "no model 'nope'"),
        ("ModelInfer", infer(model_name="nope").SerializeToString(), "NOT_FOUND", "no model 'nope'"),
        ("ModelInfer", infer(model_version="9").SerializeToString(), "NOT_FOUND", "no version '9'"),
        ("ModelInfer", infer(values=[1]).SerializeToString(), "INVALID_ARGUMENT", "input 'x'"),
        ("ModelInfer", b"\xff\xff", "INVALID_ARGUMENT", "ends within"),
        ("ModelInfer", b"", "NOT_FOUND", "no model ''"),
        ("ModelMetadata", b"\x0a\x05a", "INVALID_ARGUMENT", "isn't a ModelMetadataRequest"),
        ("ModelConfig", b"", "UNIMPLEMENTED", ""),
    ],
)
def test_who_asks_wrongly_is_told(caller: Any, method: str, fields: Any, code: str, words: str) -> None:
    call = caller("e=echo:?x=FP32[-1,3]")
    known = method if method != "ModelConfig" else "ServerLive"
    if method != known:
        with pytest.raises(grpc.RpcError) as caught:
            call.channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=5)
        error: Any = caught.value
    else:
        error = call.refused(method, fields)
    assert error.code().name == code
    assert words in error.details()


def test_health_as_kubernetes_asks_it(caller: Any) -> None:
    call = caller("e=echo:", "far=https://127.0.0.1:1/v2/models/x")
    assert call("Check", {"service": "e"}, HEALTH).status == 1
    assert call("Check", {"service": "far"}, HEALTH).status == 2
    assert call("Check", {}, HEALTH).status == 2  # as long as one of its models isn't there
    assert call.refused("Check", {"service": "nope"}, HEALTH).code() is grpc.StatusCode.NOT_FOUND


def test_larger_messages_than_are_taken(load: Any, serving: Any) -> None:
    with load(f"{serving('e=echo:', max_body=100_000)}/models/e", timeout=5) as model:
        assert model.predict({"x": np.ones((20_000,), np.float32)})["x"].sum() == 20_000
        with pytest.raises(aiaas.PayloadTooLargeError, match="larger than max"):
            model.predict({"x": np.ones((30_000,), np.float32)})


# ---------------------------------------------------------------- time, and going away
def test_the_callers_deadline_is_the_models(serving: Any, scripted: Any) -> None:
    """Behind a gateway the model that is slow hears how long its caller waits."""
    base = serving(f"far={scripted.address}")
    with aiaas.load(f"{base}/models/far", timeout=3) as model:
        model.info()
        scripted.say(lambda context: time.sleep(0.5))
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(X, timeout=0.3)
    left = [seen[2] for seen in scripted.seen if seen[0] == "ModelInfer"]
    assert len(left) == 1
    assert 0 < left[0] < 0.35


def test_the_deadline_of_any_client_is_the_models(serving: Any, scripted: Any) -> None:
    call = Caller(serving(f"e={scripted.address}"))
    while not call("ModelReady", {"name": "e"}).ready:
        time.sleep(0.02)
    method = call.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    method(infer().SerializeToString(), timeout=2)
    method(infer().SerializeToString())
    call.channel.close()
    bounded, unbounded = [seen[1].get("aiaas-timeout-ms") for seen in scripted.seen if seen[0] == "ModelInfer"]
    assert 1500 < int(bounded) < 2100
    assert unbounded is None


def test_a_caller_who_goes_away_calls_off_what_runs_for_him(serving: Any, scripted: Any) -> None:
    ended = threading.Event()

    def step(context: Any) -> None:
        context.add_callback(ended.set)
        ended.wait(5)

    caller = Caller(serving(f"e={scripted.address}"))
    call = caller.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    while not caller("ModelReady", {"name": "e"}).ready:
        time.sleep(0.02)
    scripted.say(step)
    running = call.future(infer().SerializeToString(), timeout=10)
    while "ModelInfer" not in [seen[0] for seen in scripted.seen]:
        time.sleep(0.01)
    running.cancel()
    assert ended.wait(10)
    caller.channel.close()


def test_a_gateway_tells_whose_fault_it_was(serving: Any, scripted: Any) -> None:
    with aiaas.load(f"{serving(f'far={scripted.address}')}/models/far", timeout=3, retry=None) as model:
        model.wait_ready(5)
        scripted.say(*[scripted.refusing("UNAVAILABLE", "busy", grpc_retry_pushback_ms="2000")] * 3)
        with pytest.raises(aiaas.UnavailableError) as caught:
            model.predict(X)
        scripted.stop()
        with pytest.raises(aiaas.UnavailableError, match="can't be reached"):
            model.predict(X)
        scripted.start()
    assert caught.value.retry_after == 2
    assert "127.0.0.1" not in caught.value.message


def test_calls_that_run_end_well_when_the_server_ends(scripted: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found: list[Any] = []
    with serve_in_thread([f"far={scripted.address}"], grpc_port=port):
        model = aiaas.load(f"grpc://127.0.0.1:{port}/models/far", timeout=5, retry=None)
        model.wait_ready(5)
        scripted.say(lambda context: time.sleep(0.5))
        thread = threading.Thread(target=lambda: found.append(model.predict(X)))
        thread.start()
        while "ModelInfer" not in [seen[0] for seen in scripted.seen]:
            time.sleep(0.01)
    thread.join(5)
    assert found[0]["y"].sum() == 30
    with pytest.raises(aiaas.ConnectError):
        model.predict(X)
    model.close()


def test_a_port_that_is_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(aiaas.ConfigError, match=r"can't listen on 127.0.0.1:\d+ for gRPC"),
        serve_in_thread(["echo:"], grpc_port=taken.getsockname()[1]),
    ):
        pass


def test_two_servers_dont_share_a_port(serving: Any) -> None:
    port = int(serving("echo:").rpartition(":")[2])
    with pytest.raises(aiaas.ConfigError, match="for gRPC"), serve_in_thread(["echo:"], grpc_port=port):
        pass


def test_many_callers_at_once(caller: Any) -> None:
    call = caller("e=echo:?x=FP32[-1,3]")
    method = call.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    sent = [infer(values=[n, 0, 0], id=str(n)).SerializeToString() for n in range(300)]
    answers = [one.result() for one in [method.future(body, timeout=20) for body in sent]]
    for number, body in enumerate(answers):
        answer = message("inference.ModelInferResponse").FromString(body)
        assert answer.id == str(number)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == number


# ---------------------------------------------------------------- the command
@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", "e=echo:?x=FP32[-1,3]", "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--grpc-port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["grpc"] == f"grpc://127.0.0.1:{port}"
        for address in (f"{told['grpc']}/models/e", f"{told['url']}/v2/models/e"):
            with aiaas.load(address, timeout=10) as model:
                assert model.predict(X)["x"].tolist() == X.tolist()
        process.send_signal(signal.SIGTERM)
        _, words = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in words
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- a stranger's client
TRITONCLIENT = """
import json, sys
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

told = {}
client = triton.InferenceServerClient(sys.argv[1])
told["live"] = [client.is_server_live(), client.is_server_ready(), client.is_model_ready("any")]
told["metadata"] = client.get_model_metadata("pair", as_json=True)["inputs"]

SAMPLES = {
    "BOOL": [True, False], "FP16": [0.5, 65504], "FP32": [1.5, 3e38], "FP64": [1.5, 1e300],
    "BYTES": [b"\\xff\\x00", b""],
}
NUMPY = {"BOOL": bool, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": object}
for kind in ("int", "uint"):
    for bits in (8, 16, 32, 64):
        name = f"{kind.upper()}{bits}"
        NUMPY[name] = getattr(np, f"{kind}{bits}")
        SAMPLES[name] = [np.iinfo(NUMPY[name]).min, np.iinfo(NUMPY[name]).max]

def infer(model, name, datatype, array, **options):
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return client.infer(model, [given], **options)

told["same"] = [
    datatype for datatype, values in SAMPLES.items()
    if (sent := np.array(values, dtype=NUMPY[datatype])) is not None
    and infer("any", "x", datatype, sent, request_id="a1").as_numpy("x").tolist() == sent.tolist()
]
large = np.ones((6_000_000,), np.float32)
told["large"] = bool(np.array_equal(infer("any", "x", "FP32", large).as_numpy("x"), large))

def error(call):
    try:
        call()
    except InferenceServerException as raised:
        return [raised.status(), raised.message()]

told["errors"] = [
    error(lambda: client.get_model_metadata("nope")),
    error(lambda: infer("pair", "x", "FP32", np.ones((1, 4), np.float32))),
    error(lambda: client.infer("any", [], outputs=[triton.InferRequestedOutput("x", class_count=2)])),
]
told["asynchronous"] = []
import threading
over = threading.Event()
given = triton.InferInput("x", [2], "FP32")
given.set_data_from_numpy(np.ones((2,), np.float32))
def came(result, error):
    told["asynchronous"].append([error is None, result.as_numpy("x").tolist()])
    over.set()
client.async_infer("any", [given], came)
over.wait(10)
client.close()
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.peer
def test_tritonclient_is_served(triton_env: Path, serving: Callable[..., str]) -> None:
    address = serving("any=echo:", "pair=echo:?x=FP32[-1,3]&s=BYTES[-1]")
    done = subprocess.run(
        [triton_env, "-c", TRITONCLIENT, address.removeprefix("grpc://")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["live"] == [True, True, True]
    assert told["metadata"][0] == {"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}
    assert set(told["same"]) == set(DATATYPES) - {"BF16"}
    assert told["large"]
    assert told["asynchronous"] == [[True, [1.0, 1.0]]]
    missing, shape, classes = told["errors"]
    assert missing == ["StatusCode.NOT_FOUND", "there is no model 'nope'"]
    assert shape[0] == "StatusCode.INVALID_ARGUMENT"
    assert "classification isn't offered" in classes[1]


# ---------------------------------------------------------------- conformance
@pytest.mark.slow
class TestServed(Conformance):
    """The backend against `aiaas serve`, with every datatype."""

    @pytest.fixture(scope="module")
    @staticmethod
    def subject() -> Any:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            base = f"grpc://127.0.0.1:{probe.getsockname()[1]}"
        echoes = {kind: f"{kind}=echo:?x={kind}[-1,3]&y={kind}[-1,2]" for kind in DATATYPES}
        with serve_in_thread(
            ["e=echo:?x=FP32[-1,3]&s=FP32[-1,2]", *echoes.values()], grpc_port=int(base.rpartition(":")[2])
        ):
            yield Subject(
                f"{base}/models/e",
                reference=dict,
                datatypes={kind: f"{base}/models/{kind}" for kind in DATATYPES},
                absent=f"{base}/models/nope",
                unreachable="grpc://127.0.0.1:1/models/e",
                exempt={"generate_takes_messages": "over gRPC a model continues a text; messages go over HTTP"},
            )
