"""Strangers' servers, and strangers' clients beside ours in one process."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiaas_grpc.messages import pool

import aiaas_sdk as aiaas
from aiaas_sdk.testing.conformance import Conformance, Subject
from tests.stopwatch import Stopwatch

pytestmark = [pytest.mark.slow, pytest.mark.peer]

ROOT = Path(__file__).parents[3]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(params=["triton", "mlserver", "kserve"])
def peer(request: pytest.FixtureRequest) -> str:
    """The name of a peer; its address is `request.getfixturevalue(name)`."""
    return str(request.param)


def test_a_stranger_answers(load: Any, peer: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(peer)
    with load(f"{base}/models/double", timeout=10) as model:
        prediction = model.predict(X)
        assert prediction["y"].tolist() == (2 * X).tolist()
        assert model.info().inputs[0].shape == (-1, 3)
        assert model.ready()
        with pytest.raises(aiaas.InputError):
            model.predict(X.astype(np.float64))


def test_a_stranger_has_no_such_model(load: Any, peer: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(aiaas.ModelNotFoundError):
        load(f"{request.getfixturevalue(peer)}/models/nope", timeout=10).info()


@pytest.mark.parametrize(
    ("peer", "first", "kind", "words"),
    [
        ("triton", -999, aiaas.ModelError, "this model's own fault"),
        ("mlserver", -1, aiaas.ModelError, "this model's own fault"),
        ("mlserver", -2, aiaas.InvalidRequestError, "rows out of season"),
        ("kserve", -1, aiaas.ModelError, "Internal server error"),
    ],
    indirect=["peer"],
)
def test_a_strangers_model_fails(
    load: Any, peer: str, request: pytest.FixtureRequest, first: float, kind: type, words: str
) -> None:
    with (
        load(f"{request.getfixturevalue(peer)}/models/double", timeout=10) as model,
        pytest.raises(kind, match=words) as caught,
    ):
        model.predict(np.full((1, 3), first, np.float32))
    assert caught.value.attempts == 1


def test_20_mb_go_both_ways_or_the_error_says_whose_limit_it_is(
    load: Any, peer: str, request: pytest.FixtureRequest
) -> None:
    x = np.ones((1_700_000, 3), np.float32)
    with load(f"{request.getfixturevalue(peer)}/models/double", timeout=20) as model:
        if peer == "triton":
            assert np.array_equal(model.predict(x)["y"], 2 * x)
            return
        with pytest.raises(aiaas.PayloadTooLargeError, match=r"larger than max .* That is the peer's limit") as caught:
            model.predict(x)  # MLServer's is 4 MiB unless it is told, KServe's 8
    assert caught.value.attempts == 1


def test_a_deadline_passes_at_a_strangers(load: Any, triton: str) -> None:
    with load(f"{triton}/models/slow", timeout=10) as model:
        model.info()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.predict(X, timeout=0.2)
        assert model.predict(X).attempts == 1


# ---------------------------------------------------------------- decoupled models
def test_tritons_text_comes_in_pieces(load: Any, triton: str) -> None:
    with load(f"{triton}/models/talk", timeout=10) as model:
        assert model.info().verbs == {"predict", "generate", "stream"}
        with model.stream("one two three", max_tokens=2) as pieces:
            assert [piece.text for piece in pieces] == ["one", " two"]
            assert (pieces.result().version, pieces.result().finish_reason) == ("1", "length")
        assert model.generate("one two three").text == "one two three"
        with pytest.raises(aiaas.StreamInterruptedError, match="this model's own fault") as caught:
            model.stream("so far fail").result()
        assert caught.value.partial == "so far"
        with pytest.raises(aiaas.ModelError, match="this model's own fault"):
            model.generate("fail")


def test_triton_is_told_who_left(load: Any, triton: str) -> None:
    with load(f"{triton}/models/talk", timeout=20) as model:
        watch = Stopwatch()
        with model.stream("forever") as pieces:
            assert next(pieces).text == "forever"
        assert model.generate("next").text == "next"  # the model has one instance, and is free again
        assert watch.took() < 4
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            model.stream("forever", timeout=0.5).result()
        assert caught.value.partial.startswith("foreverforever")


def test_tritons_decoupled_model_is_predicted_where_it_answers_once(load: Any, triton: str) -> None:
    x = np.ones((1, 3), np.float32)
    with load(f"{triton}/models/count", timeout=10) as model:
        assert model.info().verbs & {"predict", "generate", "stream"} == {"predict"}
        assert model.predict(x)["y"].tolist() == [[0, 0, 0]]
        with pytest.raises(aiaas.UnsupportedOperationError, match="several responses"):
            model.predict(3 * x)
        with pytest.raises(aiaas.ProtocolError, match="no response"):
            model.predict(0 * x)
        assert model.predict(x, outputs=["y"])["y"].shape == (1, 3)


# ---------------------------------------------------------------- conformance
class TestTriton(Conformance):
    @pytest.fixture(scope="module")
    @staticmethod
    def subject(triton: str) -> Subject:
        doubled: Callable[[Any], Any] = lambda inputs: {  # noqa: E731
            "y": inputs["x"] if inputs["x"].dtype == object else 2 * inputs["x"]
        }
        return Subject(
            f"{triton}/models/double",
            reference=doubled,
            datatypes={"BYTES": f"{triton}/models/text", "FP16": f"{triton}/models/half"},
            failing={"x": np.full((1, 3), -999, np.float32)},
            slow=f"{triton}/models/slow",
            absent=f"{triton}/models/nope",
            unreachable="grpc://127.0.0.1:1/models/double",
        )


class TestTritonTalk(Conformance):
    """A decoupled model of text; as one of tensors it is asked for the same words, whole."""

    @pytest.fixture(scope="module")
    @staticmethod
    def subject(triton: str) -> Subject:
        def words(rows: int, seed: int) -> dict[str, Any]:
            given = {"text_input": f"one two {seed}", "sampling_parameters": "{}"}
            return {
                "stream": np.array([False]),
                **{name: np.array([text.encode()], object) for name, text in given.items()},
            }

        return Subject(
            f"{triton}/models/talk",
            reference=lambda inputs: {
                "text_output": inputs["text_input"],
                "finish_reason": np.array([b"stop"], object),
            },
            inputs=words,
            failing={**words(1, 0), "text_input": np.array([b"fail"], object)},
            absent=f"{triton}/models/nope",
            unreachable="grpc://127.0.0.1:1/models/talk",
            exempt={"generate_takes_messages": "over gRPC a model continues a text; messages go over HTTP"},
        )


# ---------------------------------------------------------------- beside strangers' clients
BESIDE = """
import sys
sys.path.append({libraries!r})   # behind the environment's own: its grpc and protobuf are used
sys.path[:0] = [{root!r}, {plugin!r}]
from importlib import import_module

def stranger():
    return import_module({module!r})

def ours():
    import numpy as np
    from aiaas_grpc.codec import decode_request, encode_request
    from aiaas_sdk.tensors import Tensor
    x = Tensor("FP32", np.ones((1, 3), np.float32))
    return b"".join(encode_request("m", "1", {{"x": x}}, outputs=["y"], id="7", parameters={{"timeout": 5}}))

if {first!r} == "ours":
    body, messages = ours(), stranger()
else:
    messages, body = stranger(), ours()
theirs = messages.ModelInferRequest.FromString(body)
assert theirs.model_name == "m" and theirs.inputs[0].shape == [1, 3] and len(theirs.raw_input_contents[0]) == 12
assert theirs.parameters["timeout"].int64_param == 5
print("both")
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("triton", "tritonclient.grpc.service_pb2"),
        ("kserve", "kserve.protocol.grpc.grpc_predict_v2_pb2"),
        ("mlserver", "mlserver.grpc.dataplane_pb2"),
    ],
)
def test_it_is_imported_beside(peer_python: Callable[[str], Path], name: str, module: str, first: str) -> None:
    program = BESIDE.format(
        libraries=sysconfig.get_path("purelib"),
        root=str(ROOT),
        plugin=str(ROOT / "plugins" / "aiaas-grpc"),
        module=module,
        first=first,
    )
    done = subprocess.run([peer_python(name), "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "both\n", done.stderr[-3000:]


def test_the_messages_are_those_that_tritonclient_has(triton_env: Path) -> None:
    program = """
import json
from tritonclient.grpc import service_pb2

def fields(message):
    return {f.name: [f.number, f.type, f.is_repeated, f.message_type.full_name if f.message_type else None,
                     f.containing_oneof.name if f.containing_oneof else None] for f in message.fields}

def all_of(messages):
    for message in messages:
        yield message.full_name, fields(message)
        yield from all_of(message.nested_types)

print(json.dumps(dict(all_of(service_pb2.DESCRIPTOR.message_types_by_name.values()))))
"""
    done = subprocess.run([triton_env, "-c", program], capture_output=True, text=True, timeout=60)
    theirs = json.loads(done.stdout)
    scope: dict[str, Any] = {}
    exec(program.partition("\n\nprint")[0].replace("from tritonclient.grpc import service_pb2", ""), scope)
    file = pool.FindFileByName("aiaas/inference.proto")
    ours = dict(scope["all_of"](file.message_types_by_name.values()))
    assert len(ours) > 20
    extra = ours["inference.ModelMetadataResponse"].pop("parameters")
    assert extra[0] == 6
    ours.pop("inference.ModelMetadataResponse.ParametersEntry")
    for name, fields in ours.items():
        assert fields == {key: theirs[name][key] for key in fields}, name
