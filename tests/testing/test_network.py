"""The guard: whatever connects to another machine fails at once, by whichever library."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing import no_network
from tests.stopwatch import Stopwatch

FAR = "192.0.2.7"  # TEST-NET-1 (RFC 5737): nobody has it
OFF = "the network is switched off here"


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def _sent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (FAR, 53))


def _asyncio() -> None:
    asyncio.run(_opened())


async def _opened() -> None:
    await asyncio.open_connection(FAR, 80)


async def _fetched() -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://{FAR}/")


WAYS: dict[str, Callable[[], Any]] = {
    "connect": lambda: socket.socket().connect((FAR, 80)),
    "connect_ex": lambda: socket.socket().connect_ex((FAR, 80)),
    "create_connection": lambda: socket.create_connection((FAR, 80), 5),
    "a name": lambda: socket.create_connection(("model.example", 80), 5),
    "a name without a lookup": lambda: socket.socket().connect(("model.example", 80)),
    "getaddrinfo": lambda: socket.getaddrinfo("model.example", 443),
    "sendto": _sent,
    "ipv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::7", 80)),
    "an ipv4 address in ipv6": lambda: socket.socket(socket.AF_INET6).connect((f"::ffff:{FAR}", 80)),
    "http.client": lambda: http.client.HTTPConnection(FAR, timeout=5).request("GET", "/"),
    "urllib": lambda: urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{FAR}/", timeout=5),
    "urllib with tls": lambda: http.client.HTTPSConnection(FAR, timeout=5).request("GET", "/"),
    "httpx": lambda: httpx.get(f"http://{FAR}/", trust_env=False),
    "httpx, awaited": lambda: asyncio.run(_fetched()),
    "asyncio": _asyncio,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_shut_at_once(way: str) -> None:
    begun = time.monotonic()
    with no_network(), pytest.raises((aiaas.PrivacyError, ExceptionGroup)) as caught:
        WAYS[way]()
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):  # anyio tries several addresses, each in a task of its own
        [error] = error.exceptions
    assert isinstance(error, aiaas.PrivacyError)
    assert OFF in str(error)
    assert time.monotonic() - begun < 5
    del error, caught
    gc.collect()  # a socket that nobody closed would warn now


def test_a_model_fails_at_once_without_trying_again_or_elsewhere(load: Any) -> None:
    watch = Stopwatch()
    model = load([f"http://{FAR}/v2/models/m", "echo:"], retry=aiaas.Retry(attempts=5, wait=5))
    with no_network(), pytest.raises(aiaas.PrivacyError, match=f"{OFF}: this would connect to {FAR} port 80"):
        model.info()
    assert watch.took() < 4


def test_this_machine_stays_reachable(load: Any, listener: tuple[str, int]) -> None:
    with no_network():
        for host in ("127.0.0.1", "localhost", b"127.0.0.1", "LOCALHOST"):
            socket.create_connection((host, listener[1]), 5).close()
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:  # a machine may be without IPv6
            sock.connect((f"::ffff:{listener[0]}", listener[1]))
        assert socket.getaddrinfo(None, 80)
        assert socket.getaddrinfo("0.0.0.0", 80)
        with serve_in_thread(["e=echo:"]) as url, load(f"{url}/v2/models/e", timeout=10) as model:
            assert model.predict(np.ones(2)).array.tolist() == [1, 1]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Windows")
def test_unix_sockets_stay_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client, no_network():
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        left, right = socket.socketpair()
        left.close()
        right.close()


def test_a_host_that_is_allowed_may_be_reached_by_name_and_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (FAR, 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])
    with no_network(allow=["Model.example"]), socket.socket() as sock:
        with pytest.raises(aiaas.PrivacyError):
            socket.socket().connect((FAR, 80))
        socket.getaddrinfo("model.example", 80)
        sock.setblocking(False)
        with pytest.raises(OSError, match=r".") as caught:  # the real connect: on its way, or no route
            sock.connect((FAR, 80))
        assert caught.value.errno in (errno.EINPROGRESS, errno.ENETUNREACH, errno.EWOULDBLOCK, errno.EPERM)


def test_everything_is_as_before_afterwards() -> None:
    before = dict(socket.socket.__dict__), socket.getaddrinfo
    with no_network():
        with pytest.raises(aiaas.ConfigError), no_network(allow="one.example"):
            pass
        with no_network(allow=["one.example"]), pytest.raises(aiaas.PrivacyError):  # each has to allow it
            socket.getaddrinfo("one.example", 80)
        assert socket.socket.connect.__name__ == "connect"
    assert (dict(socket.socket.__dict__), socket.getaddrinfo) == before


def test_other_threads_are_held_to_it_too() -> None:
    told: list[BaseException] = []

    def work() -> None:
        try:
            socket.create_connection((FAR, 80), 5)
        except BaseException as error:
            told.append(error)

    with no_network():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    assert [type(error) for error in told] == [aiaas.PrivacyError]
