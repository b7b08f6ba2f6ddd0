"""The texts of errors on docs/troubleshooting.md and docs/policies/deadline.md are those that come out."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing import FaultServer, faults
from tests.waiting import until

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| .{5,} \|$", re.MULTILINE)
LATE = re.compile(r"^\| `([^`]+)` \| .{5,} \|$", re.MULTILINE)
PLACES = {
    "HOST:PORT": r"[\w.-]+:\d+",
    "HOST": r"[\w.-]+",
    "ADDRESS": r"\S+",
    "PATH": r"\S+",
    "NAME": r"[\w-]+",
    "KEY": r"ed25519:\S+",
    "N": r"[\d.]+",
    "…": r".+",
}
X = np.ones((1, 3), np.float32)
pytestmark = pytest.mark.slow
Met = set[tuple[str, str]]


def pattern(text: str) -> str:
    """A text of the page as a pattern of what comes out."""
    parts = re.split(r"(HOST:PORT|\b(?:HOST|ADDRESS|PATH|NAME|KEY|N)\b|…)", text)
    return "".join(PLACES.get(part) or re.escape(part) for part in parts)


def rows() -> list[tuple[str, str]]:
    late = (DOCS / "policies" / "deadline.md").read_text("utf-8").partition("## What you see")[2]
    return [
        *ROW.findall((DOCS / "troubleshooting.md").read_text("utf-8")),
        *(("DeadlineExceededError", text) for text in LATE.findall(late)),
    ]


# ---------------------------------------------------------------- meeting them
@pytest.fixture(scope="module")
def met(page: Path) -> Met:
    """What comes out of everything below, as (class, message)."""
    found: Met = set()

    def tell(work: Callable[[], Any]) -> None:
        with pytest.raises(aiaas.AiaasError) as caught:
            work()
        found.add((type(caught.value).__name__, caught.value.message))

    def call(address: Any, x: Any = X, **options: Any) -> None:
        def work() -> None:
            with aiaas.load(address, **{"timeout": 5, "retry": None, "breaker": None, **options}) as model:
                model.predict(x)

        tell(work)

    before_sending(tell, call)
    on_disk(call, page)
    with FaultServer() as server:
        the_way_there(call, server)
        refused(tell, call, server)
        late(tell, server)
    tls(call, page)
    return found


def before_sending(tell: Any, call: Any) -> None:
    call("https://user:key@host.test/v2/models/m")
    call("https://host.test")
    call("digits")
    call("other:m")
    call("echo:", retires=1)
    call("torch:models/none", device="cuda")
    echo = "echo:?x=FP32[-1,3]"
    call(echo, X.astype(np.float64))
    call(echo, np.ones((1, 4), np.float32))
    call(echo, {"y": X})
    call(echo, device="cpu")
    tell(lambda: aiaas.load("echo:").explain(X))
    model = aiaas.load(echo)
    model.close()
    tell(lambda: model.predict(X))
    far = "http://127.0.0.1:9/v2/models/m"
    for name, value in (("AIAAS_TIMOUT", "5"), ("AIAAS_PROFILE", "live"), ("A_KEY", ""), ("A_KEY", '"k"\n\x07')):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            call(far, **({"api_key": aiaas.env(name)} if name == "A_KEY" else {}))


def on_disk(call: Any, folder: Path) -> None:
    torch = pytest.importorskip("torch")

    saved = aiaas.save(torch.nn.Linear(3, 2), "models/line", example=X)
    if not torch.cuda.is_available():
        call(saved, device="cuda")
    call("models/nothing")
    call(f"{saved}0")
    for name in ("cut", "partial"):
        shutil.copytree("models/line", f"models/{name}")
    cut = Path("models/cut/1/weights.safetensors")
    cut.write_bytes(cut.read_bytes()[:-1])
    call("models/cut")
    Path("models/partial/1/model.json").unlink()
    call("models/partial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "another"))
        call(saved)
        aiaas.create("torch:models/plain", architecture="mlp", config={"features": 3, "classes": 2}).close()
        patch.setenv("AIAAS_HOME", str(folder / "a third"))
        for _ in range(2):
            call("models/plain", verify=["ed25519:" + "A" * 43 + "="])
            Path("models/plain/1/model.sig").unlink(missing_ok=True)


def the_way_there(call: Any, server: FaultServer) -> None:
    call("http://nowhere.invalid/v2/models/m")
    with server.down():
        call(server.address)
    with crowded() as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiaas_sdk.transport.connecting.CONNECT_LIMIT", 0.2)
        call(address)
        call(address, timeout=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        call(server.address)
        with proxy_that_refuses() as proxy:
            patch.setenv("HTTP_PROXY", proxy)
            patch.setenv("HTTPS_PROXY", proxy)
            call(server.address)
            call("https://host.test/v2/models/m")
    for fault in (faults.cut("body"), faults.reset("body")):
        server.on("predict", fault)
        call(server.address)
    server.on("server", faults.cut("request"))  # on a new connection, which isn't replaced
    call(server.address)
    call(server.address.replace("http:", "https:"))


@contextlib.contextmanager
def crowded() -> Iterator[str]:
    """A port whose queue is full: the kernel answers nobody."""
    if sys.platform != "linux":
        pytest.skip("other systems take more connections than were asked for")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/m"


@contextlib.contextmanager
def proxy_that_refuses() -> Iterator[str]:
    with FaultServer() as proxy:
        proxy.script(then=faults.raw(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"))
        yield proxy.url


def tls(call: Any, folder: Path) -> None:
    path = Path(__file__).parent / "faults" / "conftest.py"
    spec = importlib.util.spec_from_file_location("certificates", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for host, days, trusted in (("127.0.0.1", 1, False), ("127.0.0.1", -1, True), ("127.0.0.2", 1, True)):
        file = made.certificate(folder, host, days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        with FaultServer(tls=context) as server:
            call(server.address, network=aiaas.Network(ca=file) if trusted else None)


def refused(tell: Any, call: Any, server: FaultServer) -> None:
    for fault in (
        *(faults.status(code) for code in (400, 401, 403, 404, 405, 413, 429, 500, 502, 503, 504)),
        faults.status(302, headers={"location": "https://host.test/"}),
        faults.page(),
        faults.content(b""),
        faults.content({"outputs": []}),
        faults.raw(b"SSH-2.0-OpenSSH\r\n"),
        faults.content(b"x", {"content-encoding": "gzip"}),
        faults.claim(1 << 40),
    ):
        server.on("predict", fault)
        call(server.address)
    server.on("ready", then=faults.status(400))
    with aiaas.load(server.address) as model:
        tell(lambda: model.wait_ready(0.2))
    server.on("predict", then=faults.status(500))
    with aiaas.load(server.address, retry=None, breaker=aiaas.Breaker(minimum=1, failures=0.1)) as model:
        with contextlib.suppress(aiaas.ModelError):
            model.predict(X)
        tell(lambda: model.predict(X))
    server.on("predict")


def late(tell: Any, server: FaultServer) -> None:
    def ask(model: aiaas.Model[Any, Any], timeout: float) -> None:
        tell(lambda: model.predict(X, timeout=timeout))

    server.on("predict", then=faults.slow(0.5))
    with aiaas.load(server.address, retry=None, breaker=None) as model:
        ask(model, 0.1)
        ask(model, 1e-6)
    for limited in ({"limits": aiaas.Limits(concurrency=1)}, {"network": aiaas.Network(connections=1)}):
        with aiaas.load(server.address, retry=None, breaker=None, **limited) as model, ThreadPoolExecutor(1) as pool:
            model.info()
            before = len(server.of("predict"))
            pool.submit(model.predict, X)
            until(lambda before=before: len(server.of("predict")) > before)
            ask(model, 0.1)
    server.on("predict")
    with aiaas.load(server.address, breaker=None, limits=aiaas.Limits(requests_per_second=1)) as model:
        ask(model, 0.3)
    here(tell, ask)
    server.on("server", faults.slow(0.5))
    with contextlib.closing(aiaas.load(server.address, breaker=None)) as model:
        before = len(server.of("server"))
        opening = threading.Thread(target=model.info)
        opening.start()
        until(lambda: len(server.of("server")) > before)
        ask(model, 0.1)
        opening.join()


def here(tell: Any, ask: Any) -> None:
    torch = pytest.importorskip("torch")

    @aiaas.architecture("slow-for-its-text")
    class Slow(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            if os.environ.get("SLOW"):
                time.sleep(0.3)
            if float(x.sum()) > 100:
                raise RuntimeError("too much")
            return 2 * x

    saved = aiaas.save(Slow(), "models/slow", example=X)
    with aiaas.load(saved) as model, pytest.MonkeyPatch.context() as patch:
        tell(lambda: model.predict(100 * X))
        patch.setenv("SLOW", "1")
        ask(model, 0.1)
        time.sleep(0.3)


# ---------------------------------------------------------------- comparing them
@pytest.mark.parametrize(("name", "text"), rows(), ids=lambda value: value[:50])
def test_each_text_on_the_page_comes_out(met: Met, name: str, text: str) -> None:
    mine = sorted(message for kind, message in met if kind == name)
    assert any(re.fullmatch(pattern(text), message) for message in mine), f"not met: {text}\nbut: {mine}"


def test_each_text_that_comes_out_is_on_the_page(met: Met) -> None:
    known = [(name, pattern(text)) for name, text in rows()]
    missing = {
        (name, message)
        for name, message in met
        if not any(name == other and re.fullmatch(text, message) for other, text in known)
    }
    assert not missing
