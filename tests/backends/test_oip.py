"""The flows of the Open Inference Protocol backend, fed by hand with what real servers answer: no sockets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.address import parse
from aiaas_sdk.backends.oip import OipBackend
from aiaas_sdk.errors import AddressError, AuthenticationError, InputError, ModelError, ModelNotFoundError
from aiaas_sdk.flow import Flow, Reply, Request, Send
from aiaas_sdk.records.call import Call
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.oip import HEADER_LENGTH

URL = "http://127.0.0.1:8000/v2/models/double"
METADATA = {
    "name": "double",
    "versions": ["1", "2"],
    "platform": "python",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}
X = {"x": Tensor("FP32", np.ones((1, 3), np.float32))}


def answer(document: Any, status: int = 200) -> Reply:
    return Reply(status, {"content-type": "application/json"}, json.dumps(document).encode())


def play(flow: Flow[Any], *replies: Reply) -> tuple[Any, list[Request]]:
    sent: list[Request] = []
    left = list(replies)
    try:
        effect = next(flow)
        while True:
            assert isinstance(effect, Send)
            sent.append(effect.request)
            effect = flow.send(left.pop(0))
    except StopIteration as stop:
        return stop.value, sent


def opened(name: str = "triton", extensions: tuple[str, ...] = (), address: str = URL, **options: Any) -> OipBackend:
    backend = OipBackend(parse(address), options)
    backend.prepare()
    server = answer({"name": name, "version": "2", "extensions": list(extensions)})
    play(backend.opening(Call("open")), server, answer(METADATA))
    return backend


def test_opening_asks_the_server_and_the_model() -> None:
    backend = OipBackend(parse(f"{URL}/versions/2"), {})
    backend.prepare()
    info, sent = play(backend.opening(Call("open")), answer({"name": "t", "version": "2"}), answer(METADATA))
    assert [request.url for request in sent] == ["http://127.0.0.1:8000/v2", f"{URL}/versions/2"]
    assert (info.name, info.version, info.versions) == ("double", "2", ("1", "2"))
    assert info.rows_free


def test_a_server_without_a_root_is_done_without() -> None:
    backend = OipBackend(parse(URL), {})
    backend.prepare()
    info, _ = play(backend.opening(Call("open")), answer({"error": "not found"}, 404), answer(METADATA))
    assert info.name == "double"


@pytest.mark.parametrize(
    ("name", "extensions", "binary"),
    [
        ("triton", ("binary_tensor_data",), True),
        ("kserve", ("model_repository_extension",), True),
        ("mlserver", (), False),
    ],
)
def test_bytes_where_the_peer_takes_them(name: str, extensions: tuple[str, ...], binary: bool) -> None:
    backend = opened(name, extensions)
    call = Call("predict")
    reply = answer(
        {
            "model_name": "double",
            "model_version": "2",
            "id": None,
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [[2, 2, 2]]}],
        }
    )
    outputs, [request] = play(backend.start(call, X, ()), reply)
    assert (HEADER_LENGTH in {name.lower() for name in request.headers}) is binary
    assert outputs["y"].array.tolist() == [[2, 2, 2]]
    assert (call.version, call.attempts) == ("2", 1)


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, {"error": "no such model"}, ModelNotFoundError, "no such model"),
        (500, {"error": "RuntimeError : too big"}, ModelError, "too big"),
        (401, {"detail": "who are you"}, AuthenticationError, "No credential was sent"),
    ],
)
def test_a_refusal_has_its_class_and_the_peers_words(status: int, body: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        play(opened().start(Call("predict"), X, ()), answer(body, status))


def test_more_rows_than_the_peer_takes_are_refused_before_sending() -> None:
    backend = OipBackend(parse(URL), {})
    backend.prepare()
    metadata = {**METADATA, "parameters": {"max_batch_size": 4}}
    play(backend.opening(Call("open")), answer({"name": "t"}), answer(metadata))
    with pytest.raises(InputError, match="5 rows"):
        next(backend.start(Call("predict"), {"x": Tensor("FP32", np.ones((5, 3), np.float32))}, ()))


def test_a_key_is_sent_as_a_bearer_and_never_shown() -> None:
    backend = opened(api_key="k-12345")
    with pytest.raises(AuthenticationError) as caught:
        play(backend.start(Call("predict"), X, ()), answer({"error": "wrong key"}, 401))
    assert "argument" in str(caught.value)
    assert "k-12345" not in str(caught.value)


def test_an_address_without_a_model_says_how_to_name_one() -> None:
    for path in ("v1", "v1/chat/completions"):
        with pytest.raises(AddressError, match=r"names no model.*write openai\+https"):
            OipBackend(parse(f"https://host/{path}"), {}).prepare()
    with pytest.raises(AddressError, match="model=NAME"):
        OipBackend(parse("http://127.0.0.1:8000"), {}).prepare()
    backend = OipBackend(parse("http://127.0.0.1:8000"), {"model": "double"})
    backend.prepare()


@pytest.mark.parametrize("name", ["..", ".", "a/../../b", "..\\..", "a\r\nb", "a\0b", "a\u202eb", "x" * 70_000])
def test_the_name_of_a_model_leads_nowhere_else(name: str) -> None:
    """K04."""
    with pytest.raises(AddressError, match="option model"):
        OipBackend(parse("http://127.0.0.1:8000"), {"model": name}).prepare()


def test_the_name_of_a_model_is_percent_encoded() -> None:
    backend = OipBackend(parse("http://h"), {"model": "a/b?c#d %2e é"})
    backend.prepare()
    _, sent = play(backend.opening(Call("open")), answer({"name": "t"}), answer(METADATA))
    assert sent[1].url == "http://h/v2/models/a%2Fb%3Fc%23d%20%252e%20%C3%A9"


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, False), (404, False), (503, False)])
def test_readiness_in_every_servers_words(status: int, ready: bool) -> None:
    assert play(opened().readiness(Call("ready")), Reply(status, {}, b""))[0] is ready
