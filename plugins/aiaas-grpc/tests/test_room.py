"""The messages of all calls under way have one bound, which they share with the bodies over HTTP."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aiaas_grpc.codec import encode_request
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import HEALTH, SERVICE, message

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.testing.processes import free_port
from tests.waiting import until

KIB = 1024
LIMIT = 2000 * KIB
LARGE, SMALL = 1500 * KIB, 100 * KIB
WORDS = "the server has too many large requests; try again later"


def request(model: str, size: int, id: str = "1") -> bytes:
    """An infer request of about so many bytes."""
    rows = np.ones((size // 12, 3), np.float32)
    return b"".join(encode_request(model, "", {"x": Tensor("FP32", rows)}, outputs=(), id=id, parameters={}))


class Server:
    """One with the models `e`, which gives its input back, and `far`, whose calls last until `release`."""

    def __init__(self, url: str, port: int, scripted: Any) -> None:
        self.url, self.address, self._scripted = url, f"grpc://127.0.0.1:{port}", scripted
        self.channel: Any = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
        )
        self._free = threading.Event()

    def call(self, method: str, body: bytes = b"", service: str = SERVICE, seconds: float = 20) -> Any:
        """A call that runs; its `result` is waited for."""
        return self.channel.unary_unary(f"/{service}/{method}").future(body, timeout=seconds)

    def ready(self) -> bool:
        """Whether `far` is."""
        asked = message("inference.ModelReadyRequest")(name="far").SerializeToString()
        answer = message("inference.ModelReadyResponse").FromString(self.call("ModelReady", asked).result())
        return bool(answer.ready)

    def taken(self, size: int) -> bool:
        return self.call("ModelInfer", request("e", size)).exception() is None

    def hold(self, start: Callable[[], Any]) -> Any:
        """What `start` gives, once its call of `far` has come so far that it holds its memory."""
        calls = self._calls()
        self.stall()
        held = start()
        until(lambda: self._calls() > calls)
        return held

    def held(self, size: int = LARGE) -> Any:
        return self.hold(lambda: self.call("ModelInfer", request("far", size)))

    def stall(self) -> None:
        """The next call of `far` lasts."""
        free = self._free = threading.Event()
        self._scripted.say(lambda context: free.wait(20))

    def release(self) -> None:
        self._free.set()

    def _calls(self) -> int:
        return sum(seen[0] == "ModelInfer" for seen in self._scripted.seen)

    def post(self, size: int) -> int:
        """The status of a request over HTTP."""
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'.ljust(size)
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/e/infer", body, timeout=20) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def server(scripted: Any) -> Iterator[Server]:
    port = free_port()
    targets = ["e=echo:?x=FP32[-1,3]", f"far={scripted.address}"]
    with serve_in_thread(targets, grpc_port=port, max_bodies=LIMIT) as url:
        found = Server(url, port, scripted)
        until(found.ready)
        yield found
        found.release()
        found.channel.close()


def test_a_large_message_is_told_to_come_again_and_a_small_one_is_taken(server: Server) -> None:
    held = server.held()
    refused = server.call("ModelInfer", request("e", LARGE)).exception()
    assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, WORDS)
    assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    assert server.taken(SMALL)
    with aiaas.load(f"{server.address}/models/e", timeout=10, retry=None) as model:
        with pytest.raises(aiaas.UnavailableError, match=WORDS) as caught:
            model.predict(np.ones((LARGE // 12, 3), np.float32))
        assert caught.value.retry_after == 1
    server.release()
    assert held.exception() is None
    assert server.taken(LARGE)


def test_http_and_grpc_have_one_bound(server: Server) -> None:
    held = server.held()
    assert server.post(LARGE) == 503
    assert server.post(SMALL) == 200
    server.release()
    assert held.exception() is None
    assert server.post(LARGE) == 200


def test_one_alone_is_taken_whatever_its_size_and_probes_are_answered_beside_it(server: Server) -> None:
    assert server.taken(4 * LIMIT)
    held = server.held(LIMIT + LARGE)  # of the 4 MiB that the one behind it takes
    asked = message("grpc.health.v1.HealthCheckRequest")(service="e").SerializeToString()
    for method, body, service in (
        ("ServerLive", b"", SERVICE),
        ("ServerReady", b"", SERVICE),
        ("Check", asked, HEALTH),
    ):
        assert server.call(method, body, service).exception() is None
    unknown = b"\xa2\x06\x80\x20" + bytes(4 * KIB)  # a field 100 that nobody knows, so that it is no probe's size
    assert server.call("Check", asked + unknown, HEALTH).code() is grpc.StatusCode.UNAVAILABLE
    assert not server.taken(SMALL)
    server.release()
    assert held.exception() is None


@pytest.mark.parametrize("way", ["wrong", "no model", "fails", "cancelled", "late"])
def test_the_memory_comes_back_however_a_call_ends(server: Server, scripted: Any, way: str) -> None:
    if way == "wrong":
        assert server.call("ModelInfer", b"\xff" * LARGE).code() is grpc.StatusCode.INVALID_ARGUMENT
    elif way == "no model":
        assert server.call("ModelInfer", request("nope", LARGE)).code() is grpc.StatusCode.NOT_FOUND
    elif way == "fails":
        scripted.say(scripted.refusing("INTERNAL", "its own fault"))
        assert server.call("ModelInfer", request("far", LARGE)).code() is grpc.StatusCode.INTERNAL
    elif way == "late":
        server.stall()
        assert server.call("ModelInfer", request("far", LARGE), seconds=0.5).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        held = server.held()
        assert not server.taken(LARGE)
        held.cancel()
    until(lambda: server.taken(LARGE))


# ---------------------------------------------------------------- streams
class Stream:
    """ModelStreamInfer, asked by hand."""

    def __init__(self, server: Server) -> None:
        self._sent: list[bytes] = []
        self._more, self._over = threading.Condition(), False
        self._call: Any = server.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(self._requests(), timeout=30)

    def _requests(self) -> Iterator[bytes]:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._sent or self._over)
                if not self._sent:
                    return
                body = self._sent.pop(0)
            yield body

    def send(self, *bodies: bytes) -> None:
        with self._more:
            self._sent += bodies
            self._more.notify()

    def next(self) -> tuple[str, str, int]:
        """The id of the next response, the words of its error, and HTTP's status for it."""
        told = message("inference.ModelStreamInferResponse").FromString(next(self._call))
        answer = told.infer_response
        return answer.id, told.error_message, answer.parameters["status"].int64_param

    def close(self) -> None:
        with self._more:
            self._over = True
            self._more.notify()
        self._call.cancel()


def test_each_message_of_a_stream_counts(server: Server) -> None:
    stream = Stream(server)
    try:
        server.hold(lambda: stream.send(request("far", LARGE, "held")))
        stream.send(request("e", LARGE, "large"))
        assert stream.next() == ("large", WORDS, 503)
        stream.send(request("e", SMALL, "small"))
        assert stream.next() == ("small", "", 0)
        assert not server.taken(LARGE)
        server.release()
        assert stream.next() == ("held", "", 0)
        until(lambda: server.taken(LARGE))
        stream.send(request("e", LARGE, "again"))
        assert stream.next() == ("again", "", 0)
    finally:
        stream.close()


def test_the_memory_of_a_stream_that_is_left_comes_back(server: Server) -> None:
    stream = Stream(server)
    server.hold(lambda: stream.send(request("far", LARGE)))
    assert not server.taken(LARGE)
    stream.close()
    until(lambda: server.taken(LARGE))
