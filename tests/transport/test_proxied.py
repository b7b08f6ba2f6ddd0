"""Requests through a real proxy, small enough to read: CONNECT for https, forwarding for http."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.errors import (
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
    TLSError,
)
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import AsyncHttpSender
from tests.stopwatch import Stopwatch
from tests.transport.test_tls import asking, certificate, serving

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LENGTH = "inference-header-content-length"


class Proxy:
    """`heads` has what was asked of it. It forwards where the request line says, byte by byte."""

    def __init__(self, server: Callable[..., Any], status: bytes = b"200 OK") -> None:
        self.heads: list[bytes] = []
        self._status = status
        self.url = server(self._serve).url

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        self.heads.append(head)
        method, target = head.split()[:2]
        if method == b"CONNECT":
            client.sendall(b"HTTP/1.1 %s\r\n\r\n" % self._status)
            if self._status != b"200 OK":
                return
            place, first = target, b""
        else:
            place, first = target.split(b"/")[2], head
        host, port = place.decode().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as upstream:
            upstream.sendall(first)
            back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
            back.start()
            _pump(client, upstream)
            back.join(5)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def place(server: Any, scheme: str, tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    """A server of the scheme, whose certificate is trusted."""
    if scheme == "http":
        return server  # type: ignore[no-any-return]
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = serving(file)
    return lambda answer: server(answer, context)


@pytest.fixture
def proxy(server: Any, monkeypatch: Any) -> Proxy:
    made = Proxy(server)
    monkeypatch.setenv("ALL_PROXY", made.url.replace("//", "//user:secret@"))
    return made


def test_a_request_goes_through_the_proxy_and_its_connection_is_kept(
    place: Any, send: Any, answering: Any, proxy: Proxy, scheme: str
) -> None:
    one = place(answering(OK))
    for _ in range(3):
        reply = send(Request("POST", f"{one.url}x", {"x-key": "k"}, (b"a", memoryview(b"b"))))
        assert (reply.status, bytes(reply.body)) == (200, b"ok")
    assert len(proxy.heads) == one.seen == 1
    head = proxy.heads[0].lower()
    assert b"proxy-authorization: basic" in head
    if scheme == "https":
        assert head.startswith(b"connect 127.0.0.1:")
        assert b"x-key" not in head


def test_large_bodies_go_both_ways_and_lie_aligned(place: Any, send: Any, taken: Any, proxy: Proxy) -> None:
    data = bytes(range(256)) * 8192
    seen = []

    def answer(connection: socket.socket) -> None:
        seen.append(taken(connection).partition(b"\r\n\r\n")[2])
        connection.sendall(b"HTTP/1.1 200 OK\r\n%s: 7\r\ncontent-length: %d\r\n\r\n" % (LENGTH.encode(), len(data)))
        connection.sendall(data)

    reply = send(Request("POST", place(answer).url, {}, (b"head", memoryview(data)), align=LENGTH), 20)
    assert seen == [b"head" + data]
    assert reply.body == data


def test_streams_come_piece_by_piece(place: Any, send: Any, proxy: Proxy) -> None:
    heard = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        heard.wait(10)  # longer than the client has patience
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    reply = send.open(Request("GET", place(answer).url))
    assert send.read(reply) == b"one"
    heard.set()
    assert (send.read(reply), send.read(reply)) == (b"two", b"")
    send.release(reply)


@pytest.mark.parametrize("drips", ["head", "body"])
def test_a_peer_that_drips_cannot_outlive_the_deadline(place: Any, send: Any, proxy: Proxy, drips: str) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"" if drips == "head" else b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        try:
            for _ in range(50):
                connection.sendall(b"H" if drips == "body" else b"HTTP/1.1 200"[:1])
                time.sleep(0.1)
        except OSError:
            ended.set()

    one = place(answer)
    watch = Stopwatch()
    with pytest.raises((DeadlineExceededError, ProtocolError)):
        send(Request("GET", one.url), 0.5)
    assert watch.took() < 0.75
    assert ended.wait(10)


def test_a_cancelled_call_comes_back_at_once_and_hangs_up(place: Any, proxy: Proxy) -> None:
    gone, sender = threading.Event(), AsyncHttpSender()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.recv(65536)
        gone.set()

    url = place(answer).url

    async def use() -> None:
        task = asyncio.create_task(sender.send(Request("GET", url), None))
        await asyncio.sleep(0.4)
        task.cancel()
        watch = Stopwatch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.took() < 0.1

    asyncio.run(use())
    assert gone.wait(10)
    sender.close()


def test_a_cut_answer_is_a_lost_connection(place: Any, send: Any, replying: Any, proxy: Proxy) -> None:
    for cut in (b"", OK[:-1]):
        with pytest.raises(ConnectionLostError):
            send(Request("POST", place(replying(cut)).url, {}, (b"x",), idempotent=False))


def test_rubbish_and_compression_are_protocol_errors(place: Any, send: Any, replying: Any, proxy: Proxy) -> None:
    gzip = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx"
    for rubbish in (b"SSH-2.0-OpenSSH\r\n\r\n", gzip):
        with pytest.raises(ProtocolError):
            send(Request("GET", place(replying(rubbish)).url))


def test_a_proxy_that_refuses_is_a_connect_error_that_names_it(server: Any, send: Any, monkeypatch: Any) -> None:
    proxy = Proxy(server, b"407 Proxy Authentication Required")
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:secret@"))
    with pytest.raises(ConnectError, match=r"HTTPS_PROXY.*407") as caught:
        send(Request("GET", "https://127.0.0.1:9/"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_proxy_that_is_not_there_is_a_connect_error(send: Any, monkeypatch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectError, match="HTTP_PROXY"):
        send(Request("GET", "http://127.0.0.1:9/"))


def test_no_proxy_is_honoured(server: Any, send: Any, answering: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert send(Request("GET", server(answering(OK)).url)).status == 200


def test_a_networks_proxy_is_used_whatever_the_environment_says(
    place: Any, server: Any, send: Any, answering: Any, monkeypatch: Any
) -> None:
    proxy, one = Proxy(server), place(answering(OK))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    network = Network(proxy=proxy.url.replace("//", "//user:secret@"))
    for _ in range(2):
        assert bytes(send(Request("GET", one.url, network=network)).body) == b"ok"
    assert len(proxy.heads) == one.seen == 1
    assert b"proxy-authorization: basic" in proxy.heads[0].lower()


def test_a_network_may_say_that_there_is_none(server: Any, send: Any, answering: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert send(Request("GET", server(answering(OK)).url, network=Network(proxy="none"))).status == 200


def test_a_networks_proxy_that_is_not_there_is_named_without_its_password(send: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    network = Network(proxy=f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(ConnectError, match=rf"through the proxy 127\.0\.0\.1:{port} \(network\.proxy\)") as caught:
        send(Request("GET", "http://127.0.0.2:9/", network=network))
    assert "secret" not in str(caught.value)


def test_r79_a_private_authority_and_a_client_certificate_hold_behind_a_proxy_too(
    server: Any, send: Any, answering: Any, tmp_path: Path
) -> None:
    (tmp_path / "client").mkdir()
    file, client = certificate(tmp_path), certificate(tmp_path / "client")
    one = server(answering(OK), asking(file, client, ssl.TLSVersion.TLSv1_3))
    proxy = Proxy(server).url
    assert send(Request("GET", one.url, network=Network(ca=file, certificate=client, proxy=proxy))).status == 200
    for network in (Network(proxy=proxy), Network(ca=file, proxy=proxy)):
        with pytest.raises(TLSError) as caught:
            send(Request("GET", one.url, network=network))
        assert not caught.value.retryable


def test_socks_without_its_package_says_what_to_install(send: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        send(Request("GET", "http://127.0.0.1:9/"))


def test_httpx_is_imported_only_where_there_is_a_proxy(server: Any, answering: Any) -> None:
    url = server(answering(OK)).url
    program = f"""
import sys, time
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import HttpSender
sender = HttpSender()
assert sender.send(Request("GET", {url!r}), time.monotonic() + 5).status == 200
sender.close()
assert not {{"httpx", "httpx2", "h11", "asyncio"}} & (set(sys.modules) - {{"asyncio"}})
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
