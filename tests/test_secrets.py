"""Credentials: where they come from, when they are renewed, whom they reach, and that nothing shows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import select
import signal
import socket
import ssl
import struct
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import (
    AiaasError,
    AuthenticationError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelError,
    ModelNotFoundError,
    ProtocolError,
    StatusError,
    TLSError,
    UnavailableError,
)
from aiaas_sdk.testing import recording
from tests.stopwatch import Stopwatch
from tests.transport.conftest import Server, taken
from tests.transport.test_tls import certificate, serving

KEY = "sk-s3cret/0123456789+x="
TENANT = "tenant-s3cret-77"
X = np.full((1, 3), 12345.678, np.float32)
METADATA = {
    "name": "m",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}
ANSWER = {
    "model_name": "m",
    "model_version": "1",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}],
}
Act = Callable[[socket.socket, str], None]


class Peer:
    """An endpoint on a real socket. `heads` has the requests' heads; `act` answers an inference.

    `accepted` are the keys that it lets pass; None for all.
    """

    def __init__(self, act: Act | None = None, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[str] = []
        self.accepted: set[str] | None = None
        self._act, self._server = act, Server(self._serve, context)
        self.address = f"{self._server.url}v2/models/m"

    @property
    def keys(self) -> list[str]:
        """The Authorization header of each request."""
        return [field(head, "authorization") for head in self.heads]

    def _serve(self, connection: socket.socket) -> None:
        for _ in range(1000):
            request = taken(connection)
            if not request:
                return
            head = request.partition(b"\r\n\r\n")[0].decode()
            self.heads.append(head)
            key = field(head, "authorization").removeprefix("Bearer ")
            if self.accepted is not None and key not in self.accepted:
                reply(connection, 401, {"error": f"who is {key}"})
            elif head.startswith("POST"):
                self._act(connection, head) if self._act else reply(connection, 200, ANSWER)
            else:
                reply(connection, 200, METADATA if "/models/" in head.splitlines()[0] else {"name": "test"})

    def close(self) -> None:
        self._server.close()


def field(head: str, name: str) -> str:
    """A header's value; empty where there is none."""
    return next((line[len(name) + 2 :] for line in head.splitlines() if line.lower().startswith(f"{name}: ")), "")


def reply(connection: socket.socket, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Some Reason", f"content-type: {kind}", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def start(act: Act | None = None, context: ssl.SSLContext | None = None) -> Peer:
        peers.append(Peer(act, context))
        return peers[-1]

    yield start
    for one in peers:
        one.close()


class Tokens:
    """A function that gives `t-secret-1`, `t-secret-2`, ...; `asked` counts."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked, self._seconds = 0, seconds

    def __call__(self) -> str:
        time.sleep(self._seconds)
        self.asked += 1
        return f"t-secret-{self.asked}"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# ---------------------------------------------------------------- where it comes from
def _from_text(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"api_key": KEY}


def _from_variable(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setenv("THE_KEY", f" {KEY}\n")
    return {"api_key": aiaas.env("THE_KEY")}


def _from_file(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"api_key": aiaas.Secret.file(write(folder / "key", f"{KEY}\n"))}


def _from_function(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"api_key": lambda: KEY}


def _from_headers(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {KEY}", "x-tenant": TENANT}}


def _from_a_secret_in_headers(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setenv("THE_KEY", f"Bearer {KEY}")
    return {"headers": {"authorization": aiaas.env("THE_KEY")}}


SOURCES = (_from_text, _from_variable, _from_file, _from_function, _from_headers, _from_a_secret_in_headers)


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__.removeprefix("_from_"))
def given(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options with the key, from each source."""
    return request.param(tmp_path, monkeypatch)  # type: ignore[no-any-return]


def test_each_source_reaches_the_peer(load: Any, peer: Any, given: dict[str, Any]) -> None:
    one = peer()
    with load(one.address, **given) as model:
        assert model.predict(X)["y"].tolist() == [[1, 2, 3]]
    assert one.keys == [f"Bearer {KEY}"] * 3


def test_each_source_by_settings(load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, home = peer(), tmp_path / "own"
    home.mkdir()
    monkeypatch.setenv("AIAAS_HOME", str(home))
    monkeypatch.setenv("THE_KEY", KEY)
    write(home / "key", f"{KEY}\n")
    origin = one.address.removesuffix("/v2/models/m")
    for line in (f'api_key = "{KEY}"', 'api_key_env = "THE_KEY"', 'api_key_file = "key"'):
        write(home / "aiaas.toml", f'[credentials."{origin}"]\n{line}\n')
        with load(one.address) as model:
            model.predict(X)
    assert one.keys == [f"Bearer {KEY}"] * 9


def test_a_variable_and_a_file_are_looked_at_for_each_request(
    load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, file = peer(), write(tmp_path / "key", "first-key")
    monkeypatch.setenv("THE_KEY", "first-key")
    for secret, change in (
        (aiaas.env("THE_KEY"), lambda: monkeypatch.setenv("THE_KEY", "second-key")),
        (aiaas.Secret.file(file), lambda: write(file, "second-key")),
    ):
        one.heads.clear()
        with load(one.address, api_key=secret) as model:
            change()
            model.predict(X)
        assert one.keys == ["Bearer first-key"] * 2 + ["Bearer second-key"]


def test_a_file_isnt_read_again_while_it_stays_the_same(tmp_path: Path) -> None:
    secret = aiaas.Secret.file(write(tmp_path / "key", "first-key"))
    assert secret.reveal() == "first-key"
    stamp = os.stat(tmp_path / "key")
    (tmp_path / "key").write_text("other-key")
    os.utime(tmp_path / "key", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert secret.reveal() == "first-key"
    os.replace(write(tmp_path / "new", "third-key"), tmp_path / "key")  # as Kubernetes and careful scripts do it
    assert secret.reveal() == "third-key"


def test_a_key_file_that_others_may_read_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "key", KEY, 0o644)
    for secret in (aiaas.Secret.file(file), aiaas.Secret.file(file)):
        assert secret.reveal() == KEY
    [record] = caplog.records
    assert (record.levelno, str(file) in record.getMessage()) == (logging.WARNING, True)
    caplog.clear()
    assert aiaas.Secret.file(write(tmp_path / "own", KEY, 0o640)).reveal() == KEY
    assert caplog.records == []


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "no file of bytes"),
        (os.mkfifo, "no file of bytes"),
        (lambda path: path.write_bytes(b"x" * 20_000), "more than 16384 bytes"),
        (lambda path: path.write_bytes(b"\xffs3cret"), "isn't UTF-8"),
        (lambda path: path.write_bytes(b" \n"), "is empty"),
        (lambda path: path.write_bytes(b"s3cret\nmore"), "no HTTP header can carry"),
    ],
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, make: Callable[[Path], Any], part: str) -> None:
    make(tmp_path / "key")
    error = failure(aiaas.Secret.file(tmp_path / "key").reveal, ConfigError)
    assert str(tmp_path / "key") in str(error)
    assert part in str(error)
    assert "s3cret" not in told(error)


BAD = [
    "s3cret\r\nx: y",
    "s3cret\nx",
    '"s3cret"',
    "'s3cret'",
    "s3cré",
    "s3cret\0",
    "s3cret\x07x",
    "s3cret" * 2800,
]


@pytest.mark.parametrize("value", [*BAD, "", " ", "\n"])
def test_what_no_header_can_carry_is_refused_before_anything_is_sent(
    load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """K03, R68: the source is named, the value isn't, and it isn't tried again."""
    one, file = peer(), tmp_path / "key"
    file.write_bytes(value.encode())
    file.chmod(0o600)
    sources = {"argument api_key": value, f"file {file}": aiaas.Secret.file(file), "<lambda>": lambda: value}
    if "\0" not in value:
        monkeypatch.setenv("THE_KEY", value)
        sources["environment variable THE_KEY"] = aiaas.env("THE_KEY")
    for source, key in sources.items():
        model = load(one.address, api_key=key, timeout=5)
        error = failure(lambda model=model: model.predict(X), ConfigError)
        assert source in str(error)
        assert "3cr" not in told(error)
        model.close()
    assert one.heads == []


def test_the_key_itself_in_place_of_its_variable_isnt_repeated() -> None:
    error = failure(lambda: aiaas.env("sk-s3cret"), ConfigError)
    assert "s3cret" not in told(error)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": b"s3cret"},
        {"api_key": 3},
        {"headers": "s3cret"},
        {"headers": {"a": b"s3cret"}},
        {"headers": {"a": 3}},
    ],
)
def test_another_type_is_refused_by_load(load: Any, options: Any) -> None:
    error = failure(lambda: load("http://h/v2/models/m", **options), ConfigError)
    assert "s3cret" not in told(error)


# ---------------------------------------------------------------- functions
def test_a_function_is_asked_once_and_again_after_a_401(load: Any, peer: Any) -> None:
    one, tokens = peer(), Tokens()
    one.accepted = {"t-secret-1"}
    with load(one.address, api_key=tokens, retry=None) as model:
        model.predict(X)
        model.predict(X)
        assert tokens.asked == 1
        one.accepted = {"t-secret-2"}
        assert model.predict(X).attempts == 1  # renewing is no retry
        assert model.predict(X).attempts == 1
    assert tokens.asked == 2
    assert one.keys == ["Bearer t-secret-1"] * 5 + ["Bearer t-secret-2"] * 2


def test_a_second_401_is_the_callers(load: Any, peer: Any) -> None:
    one, tokens = peer(), Tokens()
    with load(one.address, api_key=tokens, retry=aiaas.Retry(attempts=5, wait=0)) as model:
        one.accepted = set()
        error = failure(lambda: model.predict(X), AuthenticationError)
    assert (len(one.heads), tokens.asked, error.attempts) == (4, 2, 1)
    assert "function Tokens" in str(error)


@pytest.mark.parametrize("key", [KEY, lambda: KEY])
def test_where_there_is_no_other_value_nothing_is_sent_again(load: Any, peer: Any, key: Any) -> None:
    one = peer()
    one.accepted = set()
    error = failure(load(one.address, api_key=key).info, AuthenticationError)
    assert len(one.heads) == 1
    assert "The key came from the " in (error.hint or "")
    assert KEY not in told(error)


def test_a_file_is_read_again_after_a_401_whatever_its_stamp(load: Any, peer: Any, tmp_path: Path) -> None:
    one, file = peer(), write(tmp_path / "key", "first-key")
    with load(one.address, api_key=aiaas.Secret.file(file)) as model:
        stamp = os.stat(file)
        file.write_text("other-key")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        one.accepted = {"other-key"}
        model.predict(X)
    assert one.keys[-2:] == ["Bearer first-key", "Bearer other-key"]


def test_a_secret_in_headers_is_renewed_too(load: Any, peer: Any) -> None:
    one, tokens = peer(), Tokens()
    one.accepted = {"t-secret-2"}
    with load(one.address, headers={"authorization": aiaas.Secret.of(tokens), "x-tenant": TENANT}) as model:
        model.predict(X)
    assert one.keys[:2] == ["t-secret-1", "t-secret-2"]
    assert {field(head, "x-tenant") for head in one.heads} == {TENANT}


def test_a_stream_is_renewed_before_it_begins(load: Any, peer: Any) -> None:
    def stream(connection: socket.socket, head: str) -> None:
        piece = {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
        reply(connection, 200, f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n", "text/event-stream")

    one, tokens = peer(stream), Tokens()
    with load(f"openai+{one.address.removesuffix('v2/models/m')}v1#m", api_key=tokens) as model:
        one.accepted = {"t-secret-2"}
        assert "".join(delta.text for delta in model.stream("hi")) == "hello"
    assert one.keys[-2:] == ["Bearer t-secret-1", "Bearer t-secret-2"]


def test_a_401_says_whether_a_credential_was_sent_and_where_it_came_from(load: Any, peer: Any) -> None:
    """R70."""
    one = peer()
    one.accepted = set()
    for options, words in (
        ({}, "No credential was sent"),
        ({"headers": {"x-tenant": TENANT}}, "No credential was sent; give api_key= (of headers= there went: x-tenant)"),
        ({"headers": {"authorization": "Basic abcdefgh"}}, "came from the option headers (authorization)"),
        ({"api_key": KEY}, "came from the argument api_key"),
    ):
        error = failure(load(one.address, **options).info, AuthenticationError)
        assert words in str(error)


def test_threads_share_one_renewal(peer: Any) -> None:
    one, tokens = peer(), Tokens(0.2)
    with aiaas.load(one.address, api_key=tokens) as model:
        one.accepted = {"t-secret-2"}
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(lambda _: model.predict(X), range(16)))) == 16
    assert tokens.asked == 2


async def test_tasks_share_one_renewal_and_the_loop_goes_on(peer: Any) -> None:
    one, tokens = peer(), Tokens(0.5)
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            watch = Stopwatch()
            await asyncio.sleep(0.01)
            longest = max(longest, watch.took().ours)

    looking = asyncio.ensure_future(look())
    async with aiaas.load_async(one.address, api_key=tokens) as model:
        one.accepted = {"t-secret-2"}
        await asyncio.gather(*(model.predict(X) for _ in range(16)))
    looking.cancel()
    assert tokens.asked == 2
    assert longest < 0.4


def test_a_failure_is_shared_too(peer: Any) -> None:
    one = peer()
    asked = []

    def fail() -> str:
        asked.append(1)
        if len(asked) == 1:
            return KEY
        time.sleep(0.5)
        raise OSError("s3cret")

    with aiaas.load(one.address, api_key=fail) as model, ThreadPoolExecutor(8) as pool:
        one.accepted = set()
        errors = [future.exception() for future in [pool.submit(model.predict, X) for _ in range(8)]]
    assert {type(error) for error in errors} == {ConfigError}
    assert len(asked) == 2
    assert len({id(error) for error in errors}) == 8  # one error would say of all calls what is true of one


def test_a_function_that_hangs_is_left_at_the_deadline(load: Any, peer: Any) -> None:
    one, released = peer(), threading.Event()

    def hang() -> str:
        released.wait(20)
        return KEY

    model = load(one.address, api_key=hang, timeout=0.3)
    begun = time.monotonic()
    error = failure(model.info, DeadlineExceededError)
    assert time.monotonic() - begun < 5
    assert "hang" in str(error)
    released.set()
    time.sleep(0.2)
    patient = model.with_options(timeout=20)
    patient.info()
    patient.close()
    model.close()


def test_a_loop_that_has_gone_hears_no_more_of_it(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    one, released = peer(), threading.Event()

    async def leave() -> None:
        model = aiaas.load_async(one.address, api_key=lambda: released.wait(20) and KEY, timeout=0.2)
        with pytest.raises(DeadlineExceededError):
            await model.info()

    asyncio.run(leave())
    released.set()
    time.sleep(0.3)
    assert caplog.records == []


async def test_a_cancelled_caller_leaves_the_renewal_to_the_others(peer: Any) -> None:
    one, tokens = peer(), Tokens(0.3)
    async with aiaas.load_async(one.address, api_key=tokens) as model:
        one.accepted = {"t-secret-2"}
        tasks = [asyncio.ensure_future(model.predict(X)) for _ in range(4)]
        await asyncio.sleep(0.15)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert not any(isinstance(result, BaseException) for result in results[1:])
    assert tokens.asked == 2


def _raising() -> Any:
    raise RuntimeError(KEY)


def _leaving() -> Any:
    raise SystemExit(KEY)


async def _coroutine() -> Any:
    return KEY


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (_raising, "function _raising raised RuntimeError"),
        (_leaving, "function _leaving raised SystemExit"),
        (_coroutine, "gave a coroutine"),
        (lambda: None, "gave a NoneType"),
        (lambda: KEY.encode(), "gave a bytes"),
        (lambda: (KEY, 0), "gave a tuple"),
        (lambda: (KEY, "an hour"), "gave a tuple"),
        (lambda: (KEY, 1, 2), "gave a tuple"),
        (lambda: f"{KEY}\n{KEY}", "no HTTP header can carry"),
    ],
)
def test_a_function_that_fails_is_named_and_its_words_are_not_repeated(
    load: Any, peer: Any, function: Any, part: str
) -> None:
    model = load(peer().address, api_key=function)
    error = failure(model.info, ConfigError)
    assert part in str(error)
    assert KEY not in told(error)
    assert (error.__cause__, error.__context__) == (None, None)


def test_a_function_that_failed_is_asked_again(load: Any, peer: Any) -> None:
    answers: list[Any] = [None, "", KEY]
    model = load(peer().address, api_key=lambda: answers.pop(0))
    for _ in range(2):
        failure(model.info, ConfigError)
    assert model.info().name == "m"
    model.close()


def test_a_token_with_its_seconds_is_asked_for_again_when_they_are_over(load: Any, peer: Any) -> None:
    one, tokens = peer(), Tokens()
    with load(one.address, api_key=lambda: (tokens(), 0.5)) as model:
        assert tokens.asked == 1
        time.sleep(0.6)
        model.predict(X)
    assert one.keys == ["Bearer t-secret-1"] * 2 + ["Bearer t-secret-2"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_asks_for_itself() -> None:
    secret = aiaas.Secret.of(Tokens(0.2))
    threading.Thread(target=secret.reveal, daemon=True).start()
    time.sleep(0.05)  # the child is made while the function is at work in a thread that it won't have
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.write(writer, secret.reveal().encode())
        os._exit(0)
    os.close(writer)
    told, _, _ = select.select([reader], [], [], 10)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert told
    assert os.read(reader, 100) == b"t-secret-1"
    os.close(reader)


# ---------------------------------------------------------------- shown nowhere
def failure(work: Callable[[], Any], kind: type[AiaasError]) -> Any:
    with pytest.raises(kind) as caught:
        work()
    return caught.value


def told(error: BaseException) -> str:
    """What a report, a log, a debugger or a pickle could show of an error: all of its chain, and of each frame of
    ours and of the libraries below the locals, and what those hold. The frames of tests hold the key by right."""
    return "\n".join(part for one in chained(error) for part in (*spoken(one), *framed(one)))


def chained(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def spoken(error: BaseException) -> Iterator[str]:
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)), repr(getattr(error, "__notes__", ())))
    if isinstance(error, AiaasError):
        data = pickle.dumps(error)
        yield data.decode("latin-1")
        yield str(pickle.loads(data))


def framed(error: BaseException) -> Iterator[str]:
    frames = [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if "/tests/" not in f.f_code.co_filename]
    yield from traceback.StackSummary.extract(frames, capture_locals=True).format()
    for frame, _ in frames:
        for value in frame.f_locals.values():
            yield from held(value)


def held(value: Any) -> Iterator[str]:
    """A local, and one level below it."""
    for part in (value, *inside(value)):
        yield repr(part)
        if isinstance(part, bytes | bytearray | memoryview):
            with contextlib.suppress(ValueError):  # a view that was let go of
                yield bytes(part).decode("latin-1")


def inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, partial):
        yield from (*value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from inside(value.__self__)
    elif not isinstance(value, type | types.ModuleType | str | bytes):
        yield from getattr(value, "__dict__", {}).values()
        names = {name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if isinstance(name, str)}
        yield from (getattr(value, name) for name in names if hasattr(value, name))


def echoing(status: int, kind: str = "application/json") -> Act:
    """A peer that repeats what it was sent, as some do when they refuse it."""

    def act(connection: socket.socket, head: str) -> None:
        said = f"bad key {field(head, 'authorization')} of {field(head, 'x-tenant')}"
        page = {"error": said} if kind.endswith("json") else f"<html><body>{said}</body></html>"
        reply(connection, status, page, kind)

    return act


def saying(data: bytes) -> Act:
    """A peer that says this, and waits until the caller has gone."""

    def act(connection: socket.socket, head: str) -> None:
        connection.sendall(data)
        connection.recv(1)

    return act


def resetting(connection: socket.socket, head: str) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


REPLIES: dict[str, tuple[Act, type[AiaasError]]] = {
    "307": (echoing(307), StatusError),
    "401": (echoing(401), AuthenticationError),
    "401 html": (echoing(401, "text/html"), AuthenticationError),
    "404": (echoing(404), ModelNotFoundError),
    "500": (echoing(500), ModelError),
    "503": (echoing(503), UnavailableError),
    "a page": (echoing(200, "text/html"), ProtocolError),
}
FAILURES: dict[str, tuple[Act, type[AiaasError]]] = {
    "reset": (resetting, ConnectionLostError),
    "no head": (saying(b""), DeadlineExceededError),
    "half a head": (saying(b"HTTP/1.1 200 OK\r\ncontent-"), DeadlineExceededError),
    "half a body": (saying(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), DeadlineExceededError),
    "rubbish": (saying(b"SSH-2.0-OpenSSH\r\n\r\n"), ProtocolError),
    "packed": (
        saying(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n"),
        ProtocolError,
    ),
}
HOLDING: dict[str, Any] = {"api_key": KEY, "headers": {"x-tenant": TENANT}, "retry": aiaas.Retry(attempts=2, wait=0)}


class Way:
    """How the peer is reached: `heads` has what a proxy saw."""

    def __init__(self, kind: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.heads: list[bytes] = []
        self.context = None
        if "https" in kind:
            file = certificate(folder)
            patch.setenv("SSL_CERT_FILE", str(file))
            self.context = serving(file)
        self._server = Server(self._serve, None)
        if "proxy" in kind:
            patch.setenv("ALL_PROXY", self._server.url)

    def _serve(self, client: socket.socket) -> None:
        """A proxy: CONNECT for https, forwarding for http."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.heads.append(head)
        method, target = head.split()[:2]
        host, port = (target if method == b"CONNECT" else target.split(b"/")[2]).decode().split(":")
        with socket.create_connection((host, int(port))) as upstream:
            if method == b"CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                upstream.sendall(head)
            threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
            pump(client, upstream)

    def close(self) -> None:
        self._server.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


WAYS = ("http", "https", "http by proxy", "https by proxy")
CASES = [("http", stage) for stage in REPLIES] + [(way, stage) for stage in FAILURES for way in WAYS]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    made = Way(request.param, tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize(("way", "stage"), CASES, indirect=["way"])
def test_a_failed_call_shows_no_credential(
    load: Any, peer: Any, way: Way, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """K02, R71."""
    caplog.set_level(logging.DEBUG)
    act, kind = {**REPLIES, **FAILURES}[stage]
    one = peer(act, way.context)
    late = kind is DeadlineExceededError
    with load(one.address, timeout=30, attempt_timeout=0.3 if late else None, **HOLDING) as model:
        error = failure(lambda: model.predict(X, timeout=0.5 if late else 30), kind)
    assert one.keys[-1] == f"Bearer {KEY}"
    clean(told(error), caplog.text)
    assert "12345.678" not in f"{caplog.text} {error!r} {error} {vars(error)}"  # K06: nor what the tensor holds


@pytest.mark.parametrize("stage", ["reset", "no head", "rubbish"])
@pytest.mark.parametrize("kind", ["HTTPTransport", "AsyncHTTPTransport"])
async def test_a_transport_that_was_handed_in_shows_no_credential(peer: Any, kind: str, stage: str) -> None:
    transport = getattr(pytest.importorskip("httpx"), kind)()
    options = {**HOLDING, "network": aiaas.Network(transport=transport)}
    async with aiaas.load_async(peer(FAILURES[stage][0]).address, **options) as model:
        with pytest.raises(AiaasError) as caught:
            await model.predict(X, timeout=0.5)
    await transport.aclose() if kind.startswith("Async") else transport.close()
    clean(told(caught.value))


@pytest.mark.parametrize("ending", [True, False])
def test_a_call_by_http2_shows_no_credential(load: Any, tmp_path: Path, ending: bool) -> None:
    pytest.importorskip("h2")
    from tests.transport.test_http2 import Spoken

    def handle(spoken: Spoken, stream: int, headers: dict[bytes, bytes], body: bytes) -> None:
        if headers[b":method"] == b"GET":
            page = METADATA if b"/models/" in headers[b":path"] else {"name": "test"}
            spoken.answer(stream, json.dumps(page).encode(), ("content-type", "application/json"))
        elif ending:
            spoken.connection.close()

    file = certificate(tmp_path)
    context = serving(file)
    context.set_alpn_protocols(["h2"])
    one = Server(lambda connection: Spoken(connection, handle).serve(), context)
    options = {**HOLDING, "network": aiaas.Network(http2=True, ca=file)}
    with load(f"{one.url}v2/models/m", **options) as model:
        error = failure(lambda: model.predict(X, timeout=0.7), AiaasError)
    one.close()
    clean(told(error))


def test_a_key_in_a_replys_headers_isnt_shown(load: Any, peer: Any) -> None:
    one = peer(lambda connection, head: reply(connection, 400, {"error": "no"}, **{"x-request-id": f"for {KEY}"}))
    with load(one.address, **HOLDING) as model:
        error = failure(lambda: model.predict(X), StatusError)
    assert error.request_id == "for ***"
    clean(told(error))


def clean(*texts: str) -> None:
    """None of the texts holds a credential."""
    for text in texts:
        for secret in (KEY, TENANT):
            assert secret not in text, text[max(0, text.index(secret) - 300) : text.index(secret) + 100]


@pytest.mark.slow
def test_a_call_that_is_left_while_it_is_sent_shows_no_credential(
    load: Any, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def deaf(connection: socket.socket) -> None:
        """Opens like any other, and reads no more of an inference than its head."""
        while data := connection.recv(2000):
            if data.startswith(b"POST"):
                time.sleep(1.5)
                return
            root = {"name": "test", "extensions": ["binary_tensor_data"]}
            reply(connection, 200, METADATA if b"/models/" in data else root)

    one = Server(deaf, way.context)
    with load(f"{one.url}v2/models/m", **HOLDING) as model:
        many = np.zeros((2_000_000, 3), np.float32)
        error = failure(lambda: model.predict(many, timeout=0.7), DeadlineExceededError)
    one.close()
    clean(told(error), caplog.text)


def test_a_peer_that_isnt_reached_is_shown_no_credential(
    load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    untrusted = peer(context=serving(certificate(tmp_path)))
    plain = Server(lambda connection: reply(connection, 400, "no"), None)
    refusing = Server(lambda connection: reply(connection, 407, "no"), None)
    places: dict[str, tuple[type[AiaasError], str]] = {
        f"http://127.0.0.1:{free}/v2/models/m": (ConnectError, ""),
        f"{plain.url.replace('http:', 'https:')}v2/models/m": (TLSError, ""),
        untrusted.address: (TLSError, ""),
        "https://127.0.0.1:9/v2/models/m": (ConnectError, refusing.url),
        "https://127.0.0.1:9/v2/models/n": (ConnectError, f"http://127.0.0.1:{free}"),
    }
    for address, (kind, proxy) in places.items():
        monkeypatch.setenv("ALL_PROXY", proxy)
        model = load(address, timeout=10, **HOLDING)
        clean(told(failure(model.info, kind)), caplog.text)
        model.close()
    for server in (plain, refusing):
        server.close()


def test_nothing_of_a_model_shows_a_credential(
    load: Any, peer: Any, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = dict(given)
    with load(peer().address, **options) as model, model.with_options(timeout=9, **options) as view:
        answer = view.predict(X)
        for one in (model, view, *(getattr(face, "_model", face) for face in (model, view))):
            shown = [f"{one}", repr(one), *held(one), *held(vars(one).get("_engine"))]
            clean(*shown, *held(vars(one)["_engine"].backend) if "_engine" in vars(one) else ())
        clean(repr(model.info()), repr(model.stats()), repr(answer), *held(answer))
        clean(pickle.dumps(model.info()).decode("latin-1"))
        with pytest.raises(TypeError):
            pickle.dumps(model)
    clean(caplog.text)
    assert options == given  # what was handed in is as it was


def test_an_option_that_is_wrong_shows_not_the_others(load: Any) -> None:
    address = "http://h/v2/models/m"
    for work in (
        lambda: load(address, timeout=-1, **HOLDING),
        lambda: load(address, device="cpu", **HOLDING),
        lambda: load("nowhere", **HOLDING),
        lambda: load([address, "https://me:x@h/"], **HOLDING),
        lambda: load(address).with_options(timeot=1, **HOLDING),
        lambda: load(address).with_options(timeout=-1, **HOLDING),
        lambda: aiaas.create("echo:", architecture="mlp", **HOLDING),
    ):
        clean(told(failure(work, AiaasError)))


def test_a_settings_file_that_is_wrong_shows_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))
    entry = f'[models.m]\naddress = "http://h/v2/models/m"\nheaders = {{ x-tenant = "{TENANT}" }}\n'
    for rest in ("timeout = -1", "bogus = 1", "[models]\nn = 3", "device = 3", "[trust]\nkeys = 3"):
        write(tmp_path / "aiaas.toml", f"{entry}{rest}\n")
        clean(told(failure(lambda: aiaas.load("m"), ConfigError)))
    write(tmp_path / "aiaas.toml", entry)
    clean(
        told(failure(lambda: aiaas.load("m", device="cpu"), AiaasError)),
        told(failure(lambda: aiaas.load("n"), AiaasError)),
    )


def test_a_header_from_a_settings_file_is_sent(load: Any, peer: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))
    one = peer()
    write(tmp_path / "aiaas.toml", f'[models.m]\naddress = "{one.address}"\nheaders = {{ x-tenant = "{TENANT}" }}\n')
    with load("m") as model:
        model.predict(X)
    assert {field(head, "x-tenant") for head in one.heads} == {TENANT}


def test_the_command_shows_no_credential(
    peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from typer.testing import CliRunner

    from aiaas_sdk.cli.app import app

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", X)
    fine, refusing = peer(), peer(echoing(401))
    origin = fine.address.removesuffix("/v2/models/m")
    write(tmp_path / "aiaas.toml", f'[credentials."{origin}"]\napi_key = "{KEY}"\n')
    for address in (fine.address, refusing.address):
        for command in (["info"], ["doctor"], ["predict"]):
            files = [str(tmp_path / "x.npy")] if command == ["predict"] else []
            for extra in (["--json"], ["--debug"]):
                line = [*command, address, *files, *extra, "--api-key-env", "THE_KEY"]
                result = CliRunner().invoke(app, line)
                clean(result.output, result.stderr)
    assert f"Bearer {KEY}" in refusing.keys
    clean(caplog.text)


def test_a_recording_holds_no_credential(load: Any, peer: Any, tmp_path: Path, given: dict[str, Any]) -> None:
    with recording(tmp_path / "calls.jsonl", "record"):
        for act in (None, echoing(500)):
            with load(peer(act).address, **given) as model, contextlib.suppress(ModelError):
                model.predict(X)
    assert "12345.678" in (tmp_path / "calls.jsonl").read_text()
    clean((tmp_path / "calls.jsonl").read_text())


def test_spans_and_metrics_hold_no_credential(load: Any, peer: Any, given: dict[str, Any]) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from aiaas_sdk.telemetry import Telemetry

    spans, metrics, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([metrics])
    with aiaas.observe(Telemetry(tracers, meters)):
        for act in (None, echoing(401)):
            with load(peer(act).address, **given) as model, contextlib.suppress(AuthenticationError):
                model.predict(X)
    finished = spans.get_finished_spans()
    assert len(finished) >= 4
    texts = [str(metrics.get_metrics_data()), *(span.to_json() for span in finished)]
    clean(*texts)
    assert not any("12345.678" in text for text in texts)  # K06
    tracers.shutdown()
    meters.shutdown()


# ---------------------------------------------------------------- sent to nobody else
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_fetched_that_a_peer_points_to(load: Any, peer: Any, status: int) -> None:
    """K07: neither a redirect nor a link is followed."""
    other = peer()

    def point(connection: socket.socket, head: str) -> None:
        answer = {**ANSWER, "$ref": other.address, "next": other.address}
        reply(connection, status, answer, location=other.address, link=f"<{other.address}>; rel=next")

    one = peer(point)
    with load(one.address, api_key=KEY) as model:
        assert "Redirects aren't followed" in str(failure(lambda: model.predict(X), StatusError))
    assert other.heads == []


def test_a_route_sends_each_member_its_own_key_only(
    load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))
    first, second, third = peer(echoing(503)), peer(), peer(echoing(503))
    tables = [
        f'[credentials."{one.address.removesuffix("/v2/models/m")}"]\napi_key = "{key}"\n'
        for one, key in ((first, "key-of-first"), (second, "key-of-second"))
    ]
    write(tmp_path / "aiaas.toml", "".join(tables))
    with load([first.address, third.address, second.address], retry=None) as model:
        assert model.predict(X)["y"].shape == (1, 3)
    assert set(first.keys) == {"Bearer key-of-first"}
    assert set(second.keys) == {"Bearer key-of-second"}
    assert third.heads
    assert set(third.keys) == {""}


def test_a_working_folders_file_takes_no_key_to_a_new_host(
    load: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K05: the file may say where a name leads; the key stays with its origin."""
    mine, theirs, home, work = peer(), peer(), tmp_path / "own", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("AIAAS_HOME", str(home))
    monkeypatch.chdir(work)
    origin = mine.address.removesuffix("/v2/models/m")
    entry = f'[models.m]\naddress = "{mine.address}"\nheaders = {{ x-tenant = "{TENANT}" }}\n'
    write(home / "aiaas.toml", f'{entry}[credentials."{origin}"]\napi_key = "{KEY}"\n')
    with load("m") as model:
        model.predict(X)
    assert set(mine.keys) == {f"Bearer {KEY}"}
    write(work / "aiaas.toml", f'models.m = "{theirs.address}"\n')
    with load("m") as model:
        model.predict(X)
    assert theirs.heads
    assert set(theirs.keys) == {""}
    assert TENANT not in "".join(theirs.heads)


def test_a_key_that_was_given_goes_to_whatever_host_was_named(load: Any, peer: Any) -> None:
    """R70: localhost and an address of this machine are hosts like others."""
    one = peer()
    for host in ("127.0.0.1", "localhost"):
        with load(one.address.replace("127.0.0.1", host), api_key=KEY) as model:
            model.predict(X)
    assert one.keys == [f"Bearer {KEY}"] * 6


def test_a_proxy_sees_no_key_of_an_https_request_and_netrc_is_not_read(
    load: Any, peer: Any, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K05, CVE-2024-47081."""
    write(
        tmp_path / ".netrc", "machine 127.0.0.1 login me password netrc-s3cret\ndefault login me password netrc-s3cret"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    one = peer(context=way.context)
    with load(one.address) as model:
        model.predict(X)
    assert set(one.keys) == {""}
    with load(one.address, **HOLDING) as model:
        model.predict(X)
    assert set(one.keys) == {"", f"Bearer {KEY}"}
    for head in way.heads:
        assert b"proxy-authorization" not in head.lower()
        assert head.startswith(b"CONNECT") != (KEY.encode() in head or head.startswith(b"GET"))
