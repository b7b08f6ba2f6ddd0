"""Streams of endpoints that speak OpenAI's API, cut, dripped and broken: E01 to E08, R13 to R25."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aiaas_sdk as aiaas
from tests.stopwatch import Stopwatch

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = b'{"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "test"}]}'


def chunk(text: str | None = None, *, reason: str | None = None, **delta: Any) -> dict[str, Any]:
    if text is not None:
        delta["content"] = text
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def event(document: Any, end: str = "\n") -> bytes:
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return f"data: {text}{end}{end}".encode()


def pieces(data: bytes, size: int = 1 << 16) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


DONE = event("[DONE]")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
TEXT = [event(chunk(role="assistant")), event(chunk("Hello")), event(chunk(", world")), event(chunk(reason="stop"))]


class Speaker:
    """Answers GET /models, and each POST by the next of `plans`: something to do, or bytes to send chunked."""

    def __init__(self) -> None:
        self.plans: list[Callable[[socket.socket], None] | list[bytes]] = []
        self.bodies: list[dict[str, Any]] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"openai+http://127.0.0.1:{self.port}/v1#m"
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        for _ in range(300):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.settimeout(20)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while line := lines.readline():
                    headers = {}
                    while (entry := lines.readline()) not in (b"\r\n", b""):
                        name, _, value = entry.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    body = lines.read(int(headers.get("content-length", 0)))
                    if line.startswith(b"GET"):
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(MODELS) + MODELS)
                        continue
                    self.bodies.append(json.loads(body))
                    plan = self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]
                    if callable(plan):
                        plan(connection)
                        return
                    connection.sendall(HEAD)
                    for piece in plan:
                        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    connection.sendall(b"0\r\n\r\n")
            except OSError:
                self.hung_up.set()

    def then(self, *steps: bytes | float | str) -> Callable[[socket.socket], None]:
        """Bytes are sent as chunks, numbers are pauses, "reset" and "close" end the connection."""

        def act(connection: socket.socket) -> None:
            connection.sendall(HEAD)
            for step in steps:
                if isinstance(step, bytes):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(step), step))
                elif isinstance(step, float):
                    self._wait(connection, step)
                elif step == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

        return act

    def _wait(self, connection: socket.socket, seconds: float) -> None:
        connection.settimeout(seconds)
        try:
            if connection.recv(1) == b"":
                self.hung_up.set()
                raise OSError
        except TimeoutError:
            connection.settimeout(20)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    made = Speaker()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Speaker]:
    made = Speaker()
    yield made
    made.close()


def heard(stream: Any) -> list[str]:
    with stream:
        return [delta.text for delta in stream if delta.text]


# ---------------------------------------------------------------- what arrives
SPECIAL = "a\u2028b\u2029c\u0085d\x0be\x0cf 日本語 \U0001f600 data: x"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 16])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_r13_r23_e01_text_arrives_whole_however_it_is_cut(speaker: Speaker, load: Any, size: int, end: str) -> None:
    body = (
        b": hello"
        + end.encode()
        + b"".join(event(part, end) for part in [chunk(SPECIAL), chunk("data", reason="stop"), "[DONE]"])
    )
    speaker.plans = [pieces(body, size)]
    with load(speaker.address) as model:
        stream = model.stream("hi")
        assert "".join(heard(stream)) == SPECIAL + "data"
        assert stream.text == SPECIAL + "data"
        assert speaker.bodies[0]["messages"] == [{"role": "user", "content": "hi"}]
        assert speaker.bodies[0]["stream"] is True


@pytest.mark.parametrize("last", [DONE, b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]", b""])
def test_r14_e03_every_kind_of_end_is_one(speaker: Speaker, load: Any, last: bytes) -> None:
    speaker.plans = [[*TEXT, last] if last else TEXT]
    with load(speaker.address) as model, model.stream("hi") as stream:
        answer = stream.result()
        assert (answer.text, answer.finish_reason, answer.model, answer.backend) == (
            "Hello, world",
            "stop",
            "m",
            "openai",
        )


def test_usage_comes_from_wherever_it_stands_and_all_zeros_are_unknown(speaker: Speaker, load: Any) -> None:
    zeros = event({**chunk(reason="stop"), "usage": {"prompt_tokens": 0, "completion_tokens": 0}})
    speaker.plans = [[*TEXT, USAGE, DONE], [*TEXT[:3], zeros, DONE]]
    with load(speaker.address) as model:
        usage = model.stream("hi").result().usage
        assert (usage.input_tokens, usage.output_tokens) == (3, 2)
        usage = model.stream("hi").result().usage
        assert (usage.input_tokens, usage.output_tokens) == (None, None)


@pytest.mark.parametrize(
    "parts",
    [
        [chunk(reasoning_content="I th"), chunk(reasoning_content="ink"), chunk("Yes", reason="stop")],
        [chunk(reasoning="I think"), chunk("Yes", reason="stop")],
        [chunk("<th"), chunk("ink>I thi"), chunk("nk</"), chunk("think>\nY"), chunk("es", reason="stop")],
    ],
)
def test_r80_thought_is_kept_apart_however_it_comes(speaker: Speaker, load: Any, parts: list[Any]) -> None:
    speaker.plans = [[*map(event, parts), DONE]]
    with load(speaker.address) as model, model.stream("hi") as stream:
        deltas = list(stream)
        answer = stream.result()
        assert (answer.text, answer.reasoning) == ("Yes", "I think")
        assert "".join(delta.reasoning for delta in deltas) == "I think"


def call(index: int | None, told: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return piece | ({} if index is None else {"index": index}) | ({} if told is None else {"id": told})


@pytest.mark.parametrize(
    "parts",
    [
        [call(0, "a", "f", ""), call(0, None, None, '{"x"'), call(0, None, None, ": 1}"), call(1, "b", "g", "{}")],
        [call(0, "a", "f", '{"x": 1}'), call(0, "b", "g", "{}")],  # always 0
        [call(1, "a", "f", '{"x": 1}'), call(2, "b", "g", "{}")],
        [call(None, "a", "f", '{"x": 1}'), call(None, "b", "g", "{}")],
        [call(None, "a", "f", '{"x"'), call(None, "a", None, ": 1}"), call(None, "b", "g", "")],
        [call(0, "a", "f", {"x": 1}), call(1, "b", "g", {})],  # objects, not text
        [call(0, "a", "f", '{"x"'), call(0, "a", "f", ": 1}"), call(1, "b", "g", "{}")],  # everything repeated
    ],
)
def test_pieces_of_tool_calls_are_put_together(speaker: Speaker, load: Any, parts: list[Any]) -> None:
    speaker.plans = [[*(event(chunk(tool_calls=[part])) for part in parts), event(chunk(reason="tool_calls")), DONE]]

    def f(x: int) -> int:
        """Doubles."""
        return 2 * x

    with load(speaker.address) as model, model.stream("hi", tools=[f]) as stream:
        calls = [call for delta in stream for call in delta.tool_calls]
        answer = stream.result()
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == [("a", "f", {"x": 1}), ("b", "g", {})]
    assert calls == list(answer.tool_calls)
    assert answer.finish_reason == "tool_calls"
    assert speaker.bodies[0]["tools"][0]["function"]["name"] == "f"


# ---------------------------------------------------------------- what is cut
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_e02_r20_a_cut_stream_says_what_had_come(speaker: Speaker, load: Any, how: str, count: int) -> None:
    speaker.plans = [speaker.then(*TEXT[:count], 0.1, how)]
    with load(speaker.address) as model, model.stream("hi") as stream:
        with pytest.raises((aiaas.StreamInterruptedError, aiaas.ConnectionLostError)) as caught:
            list(stream)
        if count > 1:
            assert isinstance(caught.value, aiaas.StreamInterruptedError)
            assert caught.value.partial == stream.text
    assert len(speaker.bodies) == 1  # never sent again


def test_e02_a_cut_after_the_finish_reason_is_an_end(speaker: Speaker, load: Any) -> None:
    speaker.plans = [speaker.then(*TEXT, 0.05, "reset")]
    with load(speaker.address) as model:
        assert model.stream("hi").result().text == "Hello, world"


@pytest.mark.parametrize("body", [[], [event(chunk(role="assistant"))], [b": ping\n\n"]])
def test_r22_an_empty_stream_is_an_error(speaker: Speaker, load: Any, body: list[bytes]) -> None:
    speaker.plans = [body]
    with load(speaker.address) as model, pytest.raises(aiaas.StreamInterruptedError, match="without any content"):
        model.stream("hi").result()


@pytest.mark.parametrize(
    "error",
    [
        {"error": "it broke"},
        {"error": {"message": "it broke", "type": "server_error"}},
        {"error": {"message": "it broke", "code": 500}},
    ],
)
def test_r18_e04_an_error_after_content_carries_the_peers_words_and_what_had_come(
    speaker: Speaker, load: Any, error: Any
) -> None:
    speaker.plans = [[*TEXT[:3], event(error)]]
    with load(speaker.address) as model, pytest.raises(aiaas.StreamInterruptedError, match="it broke") as caught:
        model.stream("hi").result()
    assert caught.value.partial == "Hello, world"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "no", "type": "invalid_request_error", "code": None}, aiaas.InvalidRequestError),
        ({"message": "no", "code": "rate_limit_exceeded"}, aiaas.RateLimitedError),
        ({"message": "no", "code": 503}, aiaas.UnavailableError),
        ("no", aiaas.UnavailableError),
    ],
)
def test_e04_an_error_before_content_is_as_a_status(speaker: Speaker, load: Any, error: Any, kind: Any) -> None:
    speaker.plans = [[event({"error": error})]]
    with load(speaker.address, retry=None) as model, pytest.raises(kind, match="no"):
        model.stream("hi").result()


def test_e05_an_event_that_is_no_json(speaker: Speaker, load: Any) -> None:
    speaker.plans = [[*TEXT[:2], b"data: {nonsense\n\n"]]
    with load(speaker.address) as model, pytest.raises(aiaas.StreamInterruptedError) as caught:
        model.stream("hi").result()
    assert caught.value.partial == "Hello"


# ---------------------------------------------------------------- time
def test_r25_a_healthy_stream_may_be_long_and_timeout_bounds_the_whole(speaker: Speaker, load: Any) -> None:
    steps: list[Any] = [step for n in range(8) for step in (event(chunk(str(n))), 0.1)]
    speaker.plans = [speaker.then(*steps, event(chunk(reason="stop")), DONE)]
    with load(speaker.address, attempt_timeout=0.5, gap_timeout=0.5) as model:
        assert model.stream("hi").result().text == "01234567"
        watch = Stopwatch()
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            model.stream("hi", timeout=0.35).result()
        assert 0.3 < watch.took() < 0.7
        assert caught.value.partial.startswith("01")


def test_e06_comments_are_no_progress(speaker: Speaker, load: Any) -> None:
    pings: list[Any] = [step for _ in range(30) for step in (b": ping\n\n", 0.05)]
    speaker.plans = [speaker.then(event(chunk("a")), *pings)]
    with load(speaker.address, gap_timeout=0.3) as model:
        watch = Stopwatch()
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            model.stream("hi").result()
        assert watch.took() < 0.8
        assert caught.value.partial == "a"


def test_the_first_content_has_a_limit_of_its_own(speaker: Speaker, load: Any) -> None:
    speaker.plans = [speaker.then(b": ping\n\n", 2.0)]
    with load(speaker.address, attempt_timeout=0.3) as model:
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError):
            model.stream("hi").result()
        assert watch.took() < 0.7


# ---------------------------------------------------------------- leaving, and coming back
@pytest.mark.parametrize("how", ["break", "close", "raise", "drop"])
def test_e07_who_leaves_is_heard(speaker: Speaker, load: Any, how: str) -> None:
    speaker.plans = [speaker.then(event(chunk("a")), 5.0)]
    with load(speaker.address) as model:
        stream = model.stream("hi")
        if how == "drop":
            next(stream)
            del stream
            gc.collect()
        elif how == "close":
            next(stream)
            stream.close()
            with pytest.raises(aiaas.ClosedError):
                stream.result()
        elif how == "raise":
            with pytest.raises(KeyError), stream:
                {}[next(stream)]
        else:
            with stream:
                for _ in stream:
                    break
        assert speaker.hung_up.wait(10)


async def test_e07_cancelling_is_heard(speaker: Speaker) -> None:
    speaker.plans = [speaker.then(event(chunk("a")), 5.0)]
    async with aiaas.load_async(speaker.address) as model:

        async def use() -> None:
            async with model.stream("hi") as stream:
                async for _ in stream:
                    pass

        task = asyncio.create_task(use())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(speaker.hung_up.wait, 10)


def test_r16_streams_that_were_read_give_their_connection_back(speaker: Speaker, load: Any) -> None:
    speaker.plans = [[*TEXT, DONE, b"\n\n\n"]]
    with load(speaker.address) as model:
        for _ in range(20):
            model.stream("hi").result()
    assert speaker.connections <= 2


def test_r21_a_route_falls_back_until_the_first_content(speaker: Speaker, other: Speaker, load: Any) -> None:
    speaker.plans = [
        [event({"error": "broken"})],
        [event(chunk(role="assistant"))],
        [*TEXT[:3], event({"error": "late"})],
    ]
    other.plans = [[event(chunk("from the other", reason="stop")), DONE]]
    for _ in range(2):
        with load([speaker.address, other.address]) as model:
            answer = model.stream("hi").result()
            assert (answer.text, answer.backend) == ("from the other", "openai")
    with load([speaker.address, other.address]) as model, pytest.raises(aiaas.StreamInterruptedError) as caught:
        model.stream("hi").result()
    assert caught.value.partial == "Hello, world"
    assert len(other.bodies) == 2


def test_r22_nobody_there_is_told_as_by_any_verb(load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = load(f"openai+http://127.0.0.1:{port}/v1#m", retry=None)
    with pytest.raises(aiaas.ConnectError) as streamed:
        model.stream("hi").result()
    with pytest.raises(aiaas.ConnectError) as asked:
        model.generate("hi")
    assert streamed.value.message == asked.value.message
    model.close()


def test_a_peer_that_cannot_stream_is_heard_whole(speaker: Speaker, load: Any) -> None:
    body = json.dumps({"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]}).encode()

    def plain(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )

    speaker.plans = [plain]
    with load(speaker.address) as model:
        assert heard(model.stream("hi")) == ["whole"]
