"""Streams as a client: a server of gRPC's own that streams what a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from aiaas_grpc.codec import FINAL, decode_request, encode_metadata, encode_streamed
from aiaas_grpc.forking import grpc

import aiaas_sdk as aiaas
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.oip import InferRequest, InferResponse, ModelMetadata
from tests.stopwatch import Stopwatch

VLLM = ("text_input=BYTES:1", "stream=BOOL:1", "sampling_parameters=BYTES:1", "exclude_input_in_output=BOOL:1")
TENSORRT = ("text_input=BYTES:-1,1", "max_tokens=INT32:-1,1", "temperature=FP32:-1,1", "stop_words=BYTES:-1,-1")
PLAIN = ("prompt=BYTES:1",)
Step = Callable[[Any], Any]


class Streaming(grpc.GenericRpcHandler):
    """A decoupled model `m`, whose next streams are what `say` says: each a function of the call's context that gives
    responses, made by `response` or `failure`.

    Attributes:
        asked: the requests, decoded.
        left: set when a client has cancelled a stream.
    """

    def __init__(self) -> None:
        self.asked: list[InferRequest] = []
        self.left = threading.Event()
        self.inputs: tuple[str, ...] = VLLM
        self.outputs: tuple[str, ...] = ("text_output=BYTES:1",)
        self.infer_refused = 0
        self._script: list[Callable[[Any, str], Iterator[bytes]]] = []
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}/models/m"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown(wait=True)

    def say(self, *streams: Callable[[Any, str], Iterator[bytes]]) -> None:
        self._script += streams

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if method == "ModelMetadata":
            return grpc.unary_unary_rpc_method_handler(self._metadata)
        if method == "ModelInfer":
            return grpc.unary_unary_rpc_method_handler(self._infer)
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return None

    def _metadata(self, body: bytes, context: Any) -> bytes:
        inputs, outputs = (tuple(map(spec, specs)) for specs in (self.inputs, self.outputs))
        return encode_metadata(ModelMetadata(name="m", versions=("1",), inputs=inputs, outputs=outputs))

    def _infer(self, body: bytes, context: Any) -> bytes:
        self.infer_refused += 1
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "ModelInfer RPC doesn't support models with decoupled transaction policy"
        )
        raise AssertionError

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.add_callback(lambda: self.left.set() if not over.is_set() else None)
        over = threading.Event()
        for body in requests:
            self.asked.append(decode_request(body)[2])
            yield from self._script.pop(0)(context, self.asked[-1].id or "")
        over.set()


def spec(text: str) -> TensorSpec:
    name, _, rest = text.partition("=")
    datatype, _, shape = rest.partition(":")
    return TensorSpec(name, datatype, tuple(map(int, shape.split(","))))


def response(id: str, text: bytes | str | None, final: bool | None = None, **outputs: Tensor) -> bytes:
    if text is not None:
        array = np.empty(1, object)
        array[0] = text.encode() if isinstance(text, str) else text
        outputs = {"text_output": Tensor("BYTES", array), **outputs}
    parameters: Mapping[str, Any] = {} if final is None else {FINAL: final}
    return encode_streamed(
        InferResponse(model_name="m", model_version="1", id=id, outputs=outputs, parameters=parameters)
    )


def failure(id: str, words: str, status: int | None = None) -> bytes:
    return encode_streamed(InferResponse(model_name="m", id=id, outputs={}), words, status)


def saying(*texts: bytes | str) -> Callable[[Any, str], Iterator[bytes]]:
    return lambda context, id: (response(id, text) for text in texts)


def numbers(*values: float) -> Callable[[Any, str], Iterator[bytes]]:
    return lambda context, id: (response(id, None, y=Tensor("FP32", np.array([v], np.float32))) for v in values)


@pytest.fixture
def server() -> Iterator[Streaming]:
    made = Streaming()
    yield made
    made.stop()


# ---------------------------------------------------------------- pieces
def test_pieces_come_as_they_are_sent(load: Any, server: Streaming) -> None:
    came = threading.Event()

    def stream(context: Any, id: str) -> Iterator[bytes]:
        yield response(id, "one", False)
        assert came.wait(5), "the first piece wasn't given before the second was sent"
        yield response(id, " two", False)
        yield response(id, None, True)

    server.say(stream)
    with load(server.address, timeout=10) as model:
        assert model.info().verbs == {"predict", "generate", "stream"}
        with model.stream("count") as pieces:
            assert next(pieces).text == "one"
            came.set()
            assert [piece.text for piece in pieces] == [" two"]
            whole = pieces.result()
    assert (whole.text, whole.version, whole.model) == ("one two", "1", "m")
    assert server.asked[0].inputs["stream"].array.tolist() == [True]


def test_generate_asks_for_the_whole(load: Any, server: Streaming) -> None:
    def stream(context: Any, id: str) -> Iterator[bytes]:
        counts = {name: Tensor("UINT32", np.array([count], np.uint32)) for name, count in COUNTS.items()}
        reason = np.empty(1, object)
        reason[0] = b"length"
        yield response(id, "all of it", finish_reason=Tensor("BYTES", reason), **counts)

    server.outputs += ("finish_reason=BYTES:1", "num_input_tokens=UINT32:1", "num_output_tokens=UINT32:1")
    server.inputs += ("return_finish_reason=BOOL:1",)
    server.say(stream)
    with load(server.address, timeout=10) as model:
        said = model.generate("go")
    assert (said.text, said.finish_reason) == ("all of it", "length")
    assert (said.usage.input_tokens, said.usage.output_tokens) == (3, 5)
    (asked,) = server.asked
    assert asked.inputs["stream"].array.tolist() == [False]
    assert asked.inputs["exclude_input_in_output"].array.tolist() == [True]
    assert asked.inputs["return_finish_reason"].array.tolist() == [True]
    assert [output.name for output in asked.outputs or ()] == ["text_output", "finish_reason", *COUNTS]


COUNTS = {"num_input_tokens": 3, "num_output_tokens": 5}


def test_a_character_may_be_cut_in_two(load: Any, server: Streaming) -> None:
    text = "Zürich 東京 🙂".encode()
    server.say(saying(*(text[place : place + 1] for place in range(len(text)))), saying("ab", b"\xf0\x9f"))
    with load(server.address, timeout=10) as model:
        with model.stream("go") as pieces:
            assert all("\ufffd" not in piece.text for piece in pieces)
            assert pieces.result().text == "Zürich 東京 🙂"
        assert model.generate("go").text == "ab\ufffd"


# ---------------------------------------------------------------- what is asked
@pytest.mark.parametrize(
    ("inputs", "wanted", "parameters"),
    [
        (
            VLLM,
            {
                "text_input": [b"go"],
                "stream": [False],
                "exclude_input_in_output": [True],
                "sampling_parameters": {"temperature": 0.5, "max_tokens": 4, "stop": ["a", "b"], "n": 1},
            },
            {},
        ),
        (
            TENSORRT,
            {"text_input": [[b"go"]], "temperature": [[0.5]], "max_tokens": [[4]], "stop_words": [[b"a", b"b"]]},
            {"n": 1},
        ),
        (PLAIN, {"prompt": [b"go"]}, {"temperature": 0.5, "max_tokens": 4, "stop": ["a", "b"], "n": 1}),
    ],
    ids=["vllm", "tensorrt_llm", "plain"],
)
def test_options_go_where_the_model_has_a_place_for_them(
    load: Any, server: Streaming, inputs: tuple[str, ...], wanted: dict[str, Any], parameters: dict[str, Any]
) -> None:
    server.inputs = inputs
    server.say(saying("yes"))
    with load(server.address, timeout=10) as model:
        assert model.generate("go", temperature=0.5, max_tokens=4, stop=["a", "b"], n=1).text == "yes"
    (asked,) = server.asked
    found = {name: tensor.array.tolist() for name, tensor in asked.inputs.items()}
    if "sampling_parameters" in found:
        found["sampling_parameters"] = json.loads(found["sampling_parameters"][0])
    assert found == wanted
    assert {name: value for name, value in asked.parameters.items() if name != "timeout"} == parameters


@pytest.mark.parametrize("asked", [{"logprobs": 1}, {"n": 2}])
def test_what_has_no_place_is_refused(load: Any, server: Streaming, asked: dict[str, Any]) -> None:
    with load(server.address, timeout=10) as model, pytest.raises(aiaas.UnsupportedOperationError, match=str(*asked)):
        model.generate("go", **asked)
    with load(server.address, timeout=10) as model, pytest.raises(aiaas.UnsupportedOperationError, match="HTTP"):
        model.generate([aiaas.Message("user", "go")])
    assert not server.asked


def test_a_model_of_tensors_has_no_text(load: Any, server: Streaming) -> None:
    for server.inputs, server.outputs in (
        (("text_input=BYTES:1",), ("y=FP32:1",)),
        (("text_input=BYTES:-1,3",), ("text_output=BYTES:1",)),
        (("text_input=FP32:1",), ("text_output=BYTES:1",)),
    ):
        with load(server.address, timeout=10) as model:
            assert model.info().verbs == {"predict"}
            with pytest.raises(aiaas.UnsupportedOperationError, match=r"stream isn't available .* It can predict"):
                model.stream("go").result()


# ---------------------------------------------------------------- failures
def test_what_fails_before_the_first_piece_is_an_error_of_its_own(load: Any, server: Streaming) -> None:
    server.say(
        lambda context, id: iter([failure(id, "this model's own fault")]),
        lambda context, id: iter([failure(id, "too many", 429)]),
        lambda context, id: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you"),
    )
    with load(server.address, timeout=10, retry=None) as model:
        with pytest.raises(aiaas.ModelError, match="this model's own fault"):
            model.stream("go").result()
        with pytest.raises(aiaas.RateLimitedError, match="too many"):
            model.stream("go").result()
        with pytest.raises(aiaas.AuthenticationError, match="UNAUTHENTICATED: who are you"):
            model.stream("go").result()


def test_what_fails_later_has_what_had_come(load: Any, server: Streaming) -> None:
    def refuse(context: Any, id: str) -> Iterator[bytes]:
        yield response(id, "so far")
        yield failure(id, "the GPU is gone")

    def abort(context: Any, id: str) -> Iterator[bytes]:
        yield response(id, "so far")
        time.sleep(0.2)  # gRPC drops what wasn't read when a call fails
        context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")

    def strange(context: Any, id: str) -> Iterator[bytes]:
        yield response(id, "so far")
        yield response("other", "mixed up")

    server.say(refuse, abort, strange, refuse)
    with load(server.address, timeout=10) as model:
        for words in ("the GPU is gone", "UNAVAILABLE: shutting down", "the id of another request"):
            with pytest.raises(aiaas.StreamInterruptedError, match=words) as caught:
                model.stream("go").result()
            assert (caught.value.partial, caught.value.attempts) == ("so far", 1)
        with pytest.raises(aiaas.ModelError):  # generate gives all or nothing
            model.generate("go")


def test_a_refusal_before_the_first_piece_is_tried_again(load: Any, server: Streaming) -> None:
    server.say(
        lambda context, id: context.abort(grpc.StatusCode.UNAVAILABLE, "not yet"),
        lambda context, id: iter([failure(id, "not yet", 503)]),
        saying("now"),
    )
    with load(server.address, timeout=10, retry=aiaas.Retry(wait=0.01)) as model:
        said = model.stream("go").result()
    assert (said.text, said.attempts) == ("now", 3)


def test_an_end_without_a_response_is_an_error(load: Any, server: Streaming) -> None:
    server.say(saying(), lambda context, id: iter([response(id, None, True)]), saying())
    with load(server.address, timeout=10, retry=None) as model:
        for _ in range(2):
            with pytest.raises(aiaas.StreamInterruptedError, match="without any content"):
                model.stream("go").result()
        with pytest.raises(aiaas.StreamInterruptedError, match="without any content"):
            model.generate("go")


def test_nobody_is_there(load: Any) -> None:
    with pytest.raises(aiaas.ConnectError):
        load("grpc://127.0.0.1:1/models/m", timeout=5, retry=None).stream("go").result()


# ---------------------------------------------------------------- leaving, and time
def test_who_leaves_cancels(load: Any, server: Streaming) -> None:
    def forever(context: Any, id: str) -> Iterator[bytes]:
        while context.is_active():
            yield response(id, "on ")
            time.sleep(0.01)

    server.say(forever, saying("next"))
    with load(server.address, timeout=10) as model:
        with model.stream("go") as pieces:
            assert next(pieces).text == "on "
        assert server.left.wait(5)
        assert model.generate("go").text == "next"


def test_a_stream_ends_by_the_deadline(load: Any, server: Streaming) -> None:
    def slow(context: Any, id: str) -> Iterator[bytes]:
        yield response(id, "on ")
        server.left.wait(5)

    server.say(slow)
    with load(server.address, timeout=10) as model:
        model.info()
        watch = Stopwatch()
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            model.stream("go", timeout=0.4).result()
    assert 0.3 < watch.took() < 2
    assert caught.value.partial == "on "
    assert server.left.wait(5)


@pytest.mark.parametrize(
    ("options", "first", "kind"),
    [
        ({"attempt_timeout": 0.3}, (), aiaas.DeadlineExceededError),
        ({"gap_timeout": 0.3}, ("on ",), aiaas.StreamInterruptedError),
    ],
    ids=["the first piece", "the next piece"],
)
def test_a_piece_has_its_time(
    load: Any, server: Streaming, options: dict[str, float], first: tuple[str, ...], kind: type
) -> None:
    def silent(context: Any, id: str) -> Iterator[bytes]:
        yield from (response(id, text) for text in first)
        server.left.wait(5)

    server.say(silent)
    with load(server.address, timeout=10, retry=None, **options) as model:
        model.info()
        watch = Stopwatch()
        with pytest.raises(kind):
            model.stream("go").result()
    assert 0.2 < watch.took() < 2
    assert server.left.wait(5)


# ---------------------------------------------------------------- predict
def test_a_decoupled_model_that_answers_once_is_predicted(load: Any, server: Streaming) -> None:
    server.inputs, server.outputs = ("x=FP32:1",), ("y=FP32:1",)
    server.say(numbers(7), lambda context, id: iter([*numbers(8)(context, id), response(id, None, True)]))
    with load(server.address, timeout=10) as model:
        prediction = model.predict(np.ones(1, np.float32))
        assert (prediction["y"].tolist(), prediction.version) == ([7.0], "1")
        assert model.predict(np.ones(1, np.float32))["y"].tolist() == [8.0]
    assert server.infer_refused == 1  # the second call knows


def test_predict_gives_one_answer(load: Any, server: Streaming) -> None:
    server.inputs, server.outputs = ("x=FP32:1",), ("y=FP32:1",)
    server.say(numbers(1, 2), numbers(), lambda context, id: iter([failure(id, "this model's own fault")]))
    with load(server.address, timeout=10, retry=None) as model:
        with pytest.raises(aiaas.UnsupportedOperationError, match=r"several responses.*decoupled"):
            model.predict(np.ones(1, np.float32))
        with pytest.raises(aiaas.ProtocolError, match="no response"):
            model.predict(np.ones(1, np.float32))
        with pytest.raises(aiaas.ModelError, match="this model's own fault"):
            model.predict(np.ones(1, np.float32))
