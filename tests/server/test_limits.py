"""Large, slow, many, gone: what a server does when a request isn't a good one, or its model isn't."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import bodies, serve_in_thread
from tests.stopwatch import Stopwatch

MIB = 1024**2
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}
INFER = "/v2/models/one/infer"
ONE = "one=echo:?x=FP32[-1,3]"


# ---------------------------------------------------------------- large
@pytest.fixture
def small(serving: Any) -> Any:
    """A server that takes 1000 bytes, and 900 unpacked ones."""
    return serving(ONE, max_body=1000, max_inflated=900)


def test_a_body_that_says_it_is_too_large_isnt_read(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_DRAINED", 0.2)
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10 * 1024**3}\r\n\r\n"
    begun = time.monotonic()
    came = small.send(head.encode())
    assert came.startswith(b"HTTP/1.1 413 ")
    assert b"\r\ncontent-type: application/json\r\n" in came
    assert b"\r\nconnection: close\r\n" in came
    assert time.monotonic() - begun < 5


def test_the_answer_arrives_although_the_client_goes_on_sending(small: Any) -> None:
    answer = small("POST", INFER, b" " * 4 * MIB)
    assert answer.status == 413
    assert "1000 bytes" in answer.error


def test_a_body_of_unknown_length_is_counted(small: Any) -> None:
    with socket.create_connection((small.host, small.port), timeout=10) as stream:
        stream.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            stream.sendall(b"200\r\n" + b" " * 512 + b"\r\n")
        assert stream.recv(12) == b"HTTP/1.1 413"


def test_a_body_just_within_the_limit_is_taken(small: Any) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    assert small("POST", INFER, body.ljust(1000)).status == 200
    assert small("POST", INFER, body.ljust(1001)).status == 413


@pytest.mark.parametrize("size", [901, 10 * MIB])
def test_a_packed_body_may_not_become_large(small: Any, size: int) -> None:
    answer = small("POST", INFER, gzip.compress(b" " * size)[:880], {"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert "900 bytes" in answer.error


def test_one_byte_chunks_are_put_together(small: Any) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert small.send(head.encode() + chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_a_continue_is_given_one(small: Any) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    with socket.create_connection((small.host, small.port), timeout=10) as stream:
        head = (
            f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        stream.sendall(head.encode())
        assert stream.recv(100).startswith(b"HTTP/1.1 100 ")
        stream.sendall(body)
        assert stream.recv(12) == b"HTTP/1.1 200"


def test_pages_of_other_sites_cant_reach_a_local_server(serving: Any) -> None:
    client = serving(ONE)
    refused = client("GET", "/v2", headers={"Host": "evil.example"})
    assert refused.status == 403
    assert refused.error
    for host in ("localhost", "127.0.0.1:80", "LOCALHOST:1", "[::1]:8000"):
        assert client("GET", "/v2", headers={"Host": host}).status == 200
    named = serving(ONE, hosts=["models.example"])
    assert named("GET", "/v2", headers={"Host": "models.example:8000"}).status == 200


# ---------------------------------------------------------------- slow, raising
@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that sleeps for x - 1000 seconds where x > 1000, raises below -1000, and else gives 2x."""
    torch = pytest.importorskip("torch")

    @aiaas.architecture("server-test-moody")
    class Moody(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Any) -> Any:
            mood = float(x[0, 0]) if len(x) else 0.0
            if mood > 1000:
                CALLS.append(mood)
                time.sleep(mood - 1000)
            if mood < -1000:
                raise RuntimeError("in no mood\nsecond line with details")
            return self.scale * x

    folder = tmp_path_factory.mktemp("moody") / "moody"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder.parent / "home"))
        aiaas.save(Moody(), folder, example=np.zeros((1, 1), np.float32), architecture="server-test-moody")
    return folder


CALLS: list[float] = []


def asking(mood: float, **parameters: Any) -> dict[str, Any]:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [mood]}
    return {"id": "r-7", "inputs": [x], **({"parameters": parameters} if parameters else {})}


MOODY = "/v2/models/moody/infer"


@pytest.mark.slow
def test_a_model_that_raises_is_500_and_the_connection_lives(
    moody: Path, serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = serving(str(moody))
    with caplog.at_level(logging.ERROR, "aiaas_sdk.server"):
        answer = client("POST", MOODY, asking(-2000))
    assert answer.status == 500
    assert answer.error.endswith("raised RuntimeError; the server's log says more")
    assert "in no mood" in caplog.text
    assert str(moody) not in answer.error
    assert "r-7" in caplog.text
    assert client("POST", MOODY, asking(3)).document["outputs"][0]["data"] == [6]


@pytest.mark.slow
def test_a_deadline_of_the_request_is_kept(moody: Path, serving: Any) -> None:
    client = serving(str(moody))
    watch = Stopwatch()
    answer = client("POST", MOODY, asking(1000.8, timeout=100_000))
    assert answer.status == 504
    assert answer.error
    assert watch.took() < 0.6


@pytest.mark.slow
def test_the_servers_own_deadline_is_kept(moody: Path, serving: Any) -> None:
    client = serving(str(moody), timeout=0.2)
    assert client("POST", MOODY, asking(1000.8)).status == 504
    assert client("POST", MOODY, asking(1000.8, timeout=60_000_000)).status == 504


@pytest.mark.slow
def test_more_calls_than_there_is_room_for_are_told_at_once(moody: Path, serving: Any) -> None:
    client = serving(str(moody), queue=3)
    statuses: list[tuple[int, float]] = []
    pauses: set[float | None] = set()
    together = threading.Barrier(6)

    def call() -> None:
        with aiaas.load(f"{client.url}/v2/models/moody", retry=None) as model:
            model.info()
            together.wait(20)
            watch = Stopwatch()
            try:
                model.predict(np.array([[1000.5]], np.float32))
                statuses.append((200, 0.0))
            except aiaas.UnavailableError as error:
                statuses.append((error.status or 0, watch.took().ours))
                pauses.add(error.retry_after)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert client("GET", "/v2/health/ready").status == 200
    for thread in threads:
        thread.join()
    assert pauses == {1}
    assert sorted(status for status, _ in statuses) == [200, 200, 200, 503, 503, 503]
    assert max(seconds for status, seconds in statuses if status == 503) < 0.4


@pytest.mark.slow
def test_a_call_whose_client_left_isnt_run(moody: Path, serving: Any) -> None:
    client = serving(str(moody))
    running = threading.Thread(target=client, args=("POST", MOODY, asking(1000.75)))
    running.start()
    time.sleep(0.2)
    body = json.dumps(asking(1000.25)).encode()
    with socket.create_connection((client.host, client.port)) as stream:
        head = f"POST {MOODY} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        stream.sendall(head.encode() + body)
        time.sleep(0.2)
    running.join()
    assert client("POST", MOODY, asking(1)).status == 200
    assert [mood for mood in CALLS if mood == 1000.25] == []
    assert 1000.75 in CALLS


@pytest.mark.slow
def test_a_long_reading_of_json_lets_others_through(serving: Any) -> None:
    client = serving("any=echo:")
    data = ",".join(["1.5"] * 2_000_000)
    body = f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[2000000],"data":[{data}]}}]}}'
    large = threading.Thread(target=client, args=("POST", "/v2/models/any/infer", body.encode()))
    large.start()
    from urllib.request import urlopen

    slowest = 0.0
    while large.is_alive():
        watch = Stopwatch()
        with urlopen(f"{client.url}/v2/health/live", timeout=10) as reply:
            reply.read()
        slowest = max(slowest, watch.took().ours)
    large.join()
    assert slowest < 1.0


def test_a_model_that_cant_be_opened_is_told_before_anybody_is_let_in(tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.json").write_text("{")
    with pytest.raises(aiaas.AiaasError), serve_in_thread([str(tmp_path)]):
        pass
