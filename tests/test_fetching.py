"""`fetch` against real servers here: what the rules let through, and what they keep from being asked at all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import aiaas_sdk as aiaas
from tests.stopwatch import Stopwatch

PNG = b"\x89PNG..."
HERE = {"schemes": ("http",), "networks": ("127.0.0.1",)}


class Host(BaseHTTPRequestHandler):
    """Answers each path in its own way; `asked` are those that it heard of."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        way, _, rest = self.path[1:].partition("/")
        if way == "to":
            self.answer(302, b"", location=rest)
        elif way == "round":
            self.answer(307, b"", location="/round")
        elif way == "page":
            self.answer(200, b"<html>", **{"content-type": "text/html; charset=utf-8"})
        elif way == "gone":
            self.answer(404, b"no")
        elif way == "empty":
            self.answer(200, b"")
        elif way == "endless":
            self.endless()
        elif way == "slow":
            time.sleep(3)
        else:
            self.answer(200, PNG)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "image/png", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(10_000):
                self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:
            self.asked.append("left")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Any]:
    """A server on every address of this machine: `url` is that of 127.0.0.1, `asked` what it was asked for."""
    kind: Any = type("Asked", (Host,), {"asked": []})
    server = ThreadingHTTPServer(("0.0.0.0", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    kind.port, kind.url = server.server_port, f"http://127.0.0.1:{server.server_port}"
    yield kind
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["plain", "awaited"])
def fetch(request: pytest.FixtureRequest) -> Callable[..., aiaas.Attachment]:
    """`fetch`, with rules as options, and its awaited twin."""

    def plain(url: str, **rules: Any) -> aiaas.Attachment:
        return aiaas.fetch(url, aiaas.Fetching(**rules))

    def awaited(url: str, **rules: Any) -> aiaas.Attachment:
        return asyncio.run(aiaas.fetch_async(url, aiaas.Fetching(**rules)))

    return plain if request.param == "plain" else awaited


# ---------------------------------------------------------------- what is let through
def test_what_is_there_becomes_an_attachment(fetch: Any, host: Any) -> None:
    found = fetch(f"{host.url}/a%20cat.png?size=1", **HERE)
    assert (found.data, found.media_type, found.name, found.url) == (PNG, "image/png", "a cat.png", None)
    assert fetch(f"{host.url}/to//other.png", **HERE).name == "other.png"
    assert fetch(f"{host.url}/cat.png", hosts=("127.0.0.1",), **HERE).data == PNG


# ---------------------------------------------------------------- who is asked
@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        "localhost",
        "127.0.0.2",
        "2130706433",  # 127.0.0.1 as one number
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        "224.0.0.1",
    ],
)
def test_an_address_that_isnt_public_isnt_asked(fetch: Any, host: Any, name: str) -> None:
    watch = Stopwatch()
    with pytest.raises(aiaas.ConnectError) as caught:
        fetch(f"http://{name}:{host.port}/cat.png", schemes=("http",))
    assert "at no address that may be asked" in str(caught.value) or "can't find the host" in str(caught.value)
    assert not caught.value.retryable
    assert host.asked == []
    assert watch.took() < 3


def test_the_environments_proxy_isnt_asked_either(fetch: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, host.url)
    with pytest.raises(aiaas.ConnectError, match="at no address"):
        fetch("http://10.0.0.1/cat.png", schemes=("http",))
    assert host.asked == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "scheme 'http'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("data:image/png;base64,AA==", "scheme 'data'"),
        ("cat.png", "scheme ''"),
        ("https:///cat.png", "has a host"),
        ("https://me:secret@example.com/", "no user name or password"),
        ("https://[::1/", "can't be read"),
        ("https://example.com:x/", "can't be read"),
    ],
)
def test_a_url_that_isnt_fetched(fetch: Any, url: str, words: str) -> None:
    with pytest.raises(aiaas.InputError) as caught:
        fetch(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_only_hosts_that_are_named_are_asked(fetch: Any, host: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"127.0.0.1 isn't one of the hosts"):
        fetch(f"{host.url}/cat.png", hosts=("images.example",), **HERE)
    assert host.asked == []


def test_a_redirect_is_held_to_the_rules(fetch: Any, host: Any) -> None:
    with pytest.raises(aiaas.ConnectError, match=r"127.0.0.2 is at no address that may be asked"):
        fetch(f"{host.url}/to/http://127.0.0.2:{host.port}/cat.png", **HERE)
    assert len(host.asked) == 1
    with pytest.raises(aiaas.InputError, match="scheme 'file'"):
        fetch(f"{host.url}/to/file:///etc/passwd", **HERE)
    with pytest.raises(aiaas.InputError, match="isn't one of the hosts"):
        fetch(f"{host.url}/to/http://localhost:{host.port}/x", hosts=("127.0.0.1",), **HERE)
    host.asked.clear()
    with pytest.raises(aiaas.InputError, match="more than 2 redirects"):
        fetch(f"{host.url}/round", redirects=2, **HERE)
    assert len(host.asked) == 3


# ---------------------------------------------------------------- what may come
def test_what_may_not_come(fetch: Any, host: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"gave 'text/html', which isn't taken"):
        fetch(f"{host.url}/page", **HERE)
    with pytest.raises(aiaas.StatusError, match="answered 404") as caught:
        fetch(f"{host.url}/gone", **HERE)
    assert caught.value.status == 404
    with pytest.raises(aiaas.ProtocolError, match="gave nothing"):
        fetch(f"{host.url}/empty", **HERE)


def test_the_size_is_bounded_whatever_is_said_of_it(fetch: Any, host: Any) -> None:
    with pytest.raises(aiaas.InputError, match="more than 3 bytes"):
        fetch(f"{host.url}/cat.png", size=3, **HERE)
    assert fetch(f"{host.url}/cat.png", size=len(PNG), **HERE).data == PNG
    with pytest.raises(aiaas.InputError, match="more than 5000 bytes"):
        fetch(f"{host.url}/endless", size=5000, **HERE)
    end = time.monotonic() + 5
    while "left" not in host.asked and time.monotonic() < end:
        time.sleep(0.02)
    assert "left" in host.asked


def test_the_time_is_bounded(fetch: Any, host: Any) -> None:
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        fetch(f"{host.url}/slow", timeout=0.4, **HERE)
    assert watch.took() < 1.5


# ---------------------------------------------------------------- rules
@pytest.mark.parametrize(
    "rules",
    [
        {"schemes": ("ftp",)},
        {"schemes": ()},
        {"schemes": "https"},
        {"hosts": ["a"]},
        {"networks": ("10.0.0.0/99",)},
        {"networks": ("localhost",)},
        {"size": 0},
        {"redirects": -1},
        {"timeout": 0},
    ],
)
def test_rules_that_cant_be(rules: dict[str, Any]) -> None:
    with pytest.raises(aiaas.ConfigError):
        aiaas.Fetching(**rules)


def test_nothing_is_fetched_for_a_message(load: Any, host: Any) -> None:
    part = aiaas.Attachment(media_type="image/png", url=f"{host.url}/cat.png")
    with load("echo:") as model:
        model.generate([aiaas.Message("user", ["see", part])])
    assert host.asked == []
