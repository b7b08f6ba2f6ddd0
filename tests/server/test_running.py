"""A server as a process of its own: where it listens, and how it ends."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server import serve, serve_in_thread

PROGRAM = """
import sys
from aiaas_sdk.server import serve
serve(["one=echo:?x=FP32[-1,3]", *sys.argv[2:]], port=0, drain_delay=float(sys.argv[1]),
      announce=lambda url, names: print(url, *names, flush=True))
"""


@contextmanager
def started(delay: float = 0.0, *targets: str, program: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-W", "error", "-c", program, str(delay), *targets]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line, process.communicate(timeout=10)[1]
        yield process, line[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_says_where_it_listens_and_serves_there() -> None:
    with serve_in_thread(["one=echo:"]) as url:
        assert url.startswith("http://127.0.0.1:")
        with aiaas.load(f"{url}/v2/models/one") as model:
            assert model.predict({"x": [1, 2]})["x"].tolist() == [1, 2]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=2)


def test_it_listens_on_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve_in_thread(["one=echo:"], host="::1") as url:
        assert url.startswith("http://[::1]:")
        with aiaas.load(f"{url}/v2/models/one") as model:
            assert model.ready()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            serve(["echo:"], port=port)


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_a_host_that_isnt_here_is_told(host: str) -> None:
    with pytest.raises(ConfigError, match="can't listen"):
        serve(["echo:"], host=host, port=0, public=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    with started() as (process, url):
        idle = http.client.HTTPConnection(url[7:], timeout=10)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b'{"ready":true}'
        process.send_signal(number)
        assert process.wait(30) == 0
        idle.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""


SLOW = """
import sys, time
import aiaas_sdk as aiaas
import torch
import numpy as np
from aiaas_sdk.server import serve

@aiaas.architecture("slow")
class Slow(torch.nn.Module):
    def forward(self, x):
        if len(x) and float(x[0, 0]) > 1000:
            time.sleep(float(x[0, 0]) - 1000)
        return x * 1

aiaas.save(Slow(), sys.argv[2], example=np.zeros((1, 1), np.float32), architecture="slow")
serve([sys.argv[2]], port=0, announce=lambda url, names: print(url, *names, flush=True))
"""


@pytest.mark.slow
def test_a_running_request_is_finished_first(tmp_path: Path) -> None:
    with started(0.0, str(tmp_path / "slow"), program=SLOW) as (process, url):
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1001.5]}]}'
        connection = http.client.HTTPConnection(url[7:], timeout=20)
        connection.request("POST", "/v2/models/slow/infer", body)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.getheader("connection") == "close"
        assert b"1001.5" in reply.read()
        connection.close()
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with started(0.0, str(tmp_path / "slow"), program=SLOW) as (process, url):
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1020]}]}'
        connection = http.client.HTTPConnection(url[7:], timeout=20)
        connection.request("POST", "/v2/models/slow/infer", body)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == -signal.SIGTERM
        connection.close()


@pytest.mark.slow
def test_while_it_drains_it_serves_and_isnt_ready() -> None:
    with started(3.0) as (process, url):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection = http.client.HTTPConnection(url[7:], timeout=10)
        connection.request("GET", "/v2/health/ready")
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("connection")) == (503, "close")
        reply.read()
        with aiaas.load(f"{url}/v2/models/one") as model:
            assert model.predict([[1.0, 2.0, 3.0]]).array.tolist() == [[1, 2, 3]]
        connection.close()
        assert process.wait(30) == 0


@pytest.mark.slow
def test_no_request_is_lost_while_it_ends() -> None:
    with started() as (process, url):
        outcomes: list[str] = []

        def call() -> None:
            with aiaas.load(f"{url}/v2/models/one", retry=None) as model:
                while True:
                    try:
                        model.predict([[1.0, 2.0, 3.0]])
                        outcomes.append("ok")
                    except aiaas.ConnectError:  # nobody listens any more: never taken on, so not lost
                        return
                    except aiaas.AiaasError as error:
                        outcomes.append(type(error).__name__)
                        return

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(30) == 0
        assert set(outcomes) == {"ok"}


def test_importing_the_package_loads_no_server() -> None:
    program = "import sys, aiaas_sdk.server; sys.exit('starlette' in sys.modules or 'uvicorn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
