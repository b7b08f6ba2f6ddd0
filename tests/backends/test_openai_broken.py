"""Endpoints of OpenAI's kind that break, at any byte and at any moment: E02, E05, S10, R03, R07, R20 and R30."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aiaas_sdk as aiaas
from tests.backends.test_openai_streams import DONE, HEAD, TEXT, Speaker, chunk, event
from tests.stopwatch import Stopwatch, unhurried
from tests.waiting import until

SLACK = 0.25
FIRM: dict[str, Any] = {"timeout": 10, "breaker": None}
"""As usual, but that the failures of one test don't open the breaker."""
Act = Callable[[socket.socket], None]


@pytest.fixture
def speakers() -> Iterator[Callable[[Act], Speaker]]:
    """Makes peers that do one thing."""
    made: list[Speaker] = []

    def make(act: Act) -> Speaker:
        made.append(Speaker())
        made[-1].plans = [act]
        return made[-1]

    yield make
    for one in made:
        one.close()


def sending(*pieces: bytes) -> Act:
    """The head of a stream and chunks of it."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    return act


def answering(status: int, body: bytes = b'{"error": "busy"}', *, length: int | None = None) -> Act:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


# ---------------------------------------------------------------- E02: at any byte
WHOLE = b"".join([*TEXT, DONE])
STOPPED = len(b"".join(TEXT)) - 2
"""Bytes after which the reason to finish has come: an end of the line or the connection ends its event."""


def cut(at: int, end: str) -> Act | list[bytes]:
    if end == "last chunk":  # whole by the rules of HTTP
        return [WHOLE[:at]] if at else []

    def act(connection: socket.socket) -> None:
        sending(*[WHOLE[:at]] * bool(at))(connection)
        if end == "reset":
            time.sleep(0.01)  # what had been sent arrives
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    return act


def outcome(stream: Any) -> tuple[str, aiaas.AiaasError | None]:
    """What is heard of a stream, and what ends it."""
    heard = ""
    try:
        for delta in stream:
            heard += delta.text
    except aiaas.AiaasError as error:
        return heard, error
    return heard, None


@pytest.mark.parametrize(("end", "step"), [("close", 1), ("last chunk", 1), ("reset", 9)])
def test_e02_a_stream_that_ends_at_any_byte_gives_what_had_come_or_all(
    load: Any, speakers: Any, end: str, step: int
) -> None:
    spoken = len(TEXT[0]) + len(TEXT[1]) - 2  # then the first word has come
    for start in range(0, len(WHOLE) + 1, 250):  # a speaker takes 300 connections
        speaker = speakers(None)
        with load(speaker.address, retry=None, **FIRM) as model:
            for at in range(start, min(start + 250, len(WHOLE) + 1), step):
                speaker.plans = [cut(at, end)]
                stream = model.stream("hi")
                heard, error = outcome(stream)
                assert heard == stream.text
                assert heard in ("", "Hello", "Hello, world")
                if error is None:
                    assert (heard, stream.result().finish_reason, at >= STOPPED) == ("Hello, world", "stop", True)
                elif at >= spoken + 2:
                    assert type(error) is aiaas.StreamInterruptedError
                    assert (error.partial, at <= STOPPED + 1) == (heard, True)
                else:  # nothing had been given out, or that just before
                    assert isinstance(
                        error, aiaas.StreamInterruptedError | aiaas.ConnectionLostError | aiaas.ProtocolError
                    )
                    assert getattr(error, "partial", "") == heard


# ---------------------------------------------------------------- E05, R20
def test_e05_an_event_without_an_end_is_left_at_16_mib(load: Any, speakers: Any) -> None:
    block = b"x" * 65536
    for before in ([], [event(chunk("Hello"))]):
        speaker = speakers(sending(*before, b"data: ", *[block] * 1024))
        with load(speaker.address, timeout=30, breaker=None) as model:
            stream = model.stream("hi")
            with pytest.raises(aiaas.AiaasError, match="event larger than") as caught:
                list(stream)
        assert type(caught.value) is (aiaas.StreamInterruptedError if before else aiaas.ProtocolError)
        assert getattr(caught.value, "partial", "") == ("Hello" if before else "")
        until(speaker.hung_up.is_set)
        assert len(speaker.bodies) == 1


def packed(connection: socket.socket) -> None:
    data = gzip.compress(WHOLE)
    head = HEAD.replace(b"transfer-encoding", b"content-encoding: gzip\r\ntransfer-encoding")
    connection.sendall(head + b"%x\r\n%s" % (len(data), data[: len(data) // 2]))


def test_r20_half_a_packed_body_is_one_of_our_errors(load: Any, speakers: Any) -> None:
    with load(speakers(packed).address, **FIRM) as model, pytest.raises(aiaas.ProtocolError, match="gzip"):
        list(model.stream("hi"))


@pytest.mark.parametrize("limit", ["gap_timeout", "timeout"])
def test_r20_a_silence_after_two_pieces_ends_with_what_had_come(load: Any, speakers: Any, limit: str) -> None:
    speaker = speakers(None)
    speaker.plans = [speaker.then(*TEXT[:3], 8.0)]
    with load(speaker.address, **{**FIRM, limit: 0.4}) as model:
        stream, watch = model.stream("hi"), Stopwatch()
        with pytest.raises(aiaas.StreamInterruptedError) as caught:
            list(stream)
        assert 0.3 < watch.took() < 0.4 + SLACK
        assert caught.value.partial == "Hello, world"
        assert isinstance(caught.value.__cause__, aiaas.DeadlineExceededError)
    until(speaker.hung_up.is_set)


# ---------------------------------------------------------------- S10, R07: what costs money is asked for once
def leave(connection: socket.socket) -> None:
    """Say nothing more."""


def hold(connection: socket.socket) -> None:
    time.sleep(2)


LOST: dict[str, tuple[Act, type[aiaas.AiaasError]]] = {
    "500": (answering(500), aiaas.ModelError),
    "502": (answering(502), aiaas.UnavailableError),
    "504": (answering(504), aiaas.UnavailableError),
    "408": (answering(408), aiaas.StatusError),
    "no answer": (leave, aiaas.ConnectionLostError),
    "half an answer": (answering(200, b'{"choices"', length=500), aiaas.ConnectionLostError),
    "half a stream": (sending(TEXT[0]), aiaas.ConnectionLostError),
    "silence": (hold, aiaas.DeadlineExceededError),
}
VERBS: dict[str, Callable[[Any], Any]] = {
    "generate": lambda model: model.generate("hi"),
    "stream": lambda model: model.stream("hi").result(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("act", "kind"), LOST.values(), ids=LOST.keys())
def test_s10_r07_a_lost_answer_is_asked_for_once_and_the_outcome_is_unknown(
    load: Any, speakers: Any, verb: str, act: Act, kind: type[aiaas.AiaasError]
) -> None:
    speaker = speakers(act)
    with load(speaker.address, **{**FIRM, "timeout": 0.5}) as model:
        with pytest.raises(kind, match="outcome is unknown") as caught:
            VERBS[verb](model)
        assert type(caught.value) is kind
        time.sleep(0.1)  # in which it would have been sent again
    assert len(speaker.bodies) == 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", [429, 503])
def test_s10_a_refusal_is_asked_again(load: Any, speakers: Any, verb: str, status: int) -> None:
    speaker = speakers(answering(status))
    right = b'{"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]}'
    ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    speaker.plans = [answering(status), lambda connection: connection.sendall(ok % len(right) + right)]
    with load(speaker.address, retry=aiaas.Retry(wait=0.001), **FIRM) as model:
        assert VERBS[verb](model).text == "whole"
    assert len(speaker.bodies) == 2


# ---------------------------------------------------------------- R03
@pytest.mark.parametrize("verb", [*VERBS, "embed"])
@pytest.mark.parametrize("place", ["load", "with_options", "call"])
def test_r03_a_timeout_counts_for_verbs_of_language(load: Any, speakers: Any, verb: str, place: str) -> None:
    speaker = speakers(hold)
    given: Any = {"timeout": 0.3} if place == "call" else {}
    asks: dict[str, Callable[[Any], Any]] = {
        "generate": lambda model: model.generate("hi", **given),
        "stream": lambda model: model.stream("hi", **given).result(),
        "embed": lambda model: model.embed(["hi"], **given),
    }
    with load(speaker.address, timeout=0.3 if place == "load" else 20, breaker=None) as model:
        model.info()
        view = model.with_options(timeout=0.3) if place == "with_options" else model
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError):
            asks[verb](view)
        assert 0.3 <= watch.took() < 0.3 + SLACK
        if view is not model:
            view.close()


# ---------------------------------------------------------------- X05, R30: a process that ends in the middle
BEGIN = "import asyncio, sys, threading, time\nimport aiaas_sdk as aiaas\n"
LEAVING = {
    "a global": """
        model = aiaas.load(sys.argv[1], timeout=60)
        stream = model.stream("hi")
        print(next(stream).text, time.time(), flush=True)
        """,
    "a loop": """
        async def main():
            global model, stream
            model = aiaas.load_async(sys.argv[1], timeout=60)
            stream = model.stream("hi")
            print((await anext(stream)).text, time.time(), flush=True)
        asyncio.run(main())
        """,
    "an exit": """
        async def main():
            async with aiaas.load_async(sys.argv[1], timeout=60) as model:
                async for delta in model.stream("hi"):
                    print(delta.text, time.time(), flush=True)
                    sys.exit(0)
        asyncio.run(main())
        """,
    "a thread": """
        def read():
            for delta in aiaas.load(sys.argv[1], timeout=60).stream("hi"):
                print(delta.text, time.time(), flush=True)
                told.set()
        told = threading.Event()
        threading.Thread(target=read, daemon=True).start()
        told.wait(20)
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("code", LEAVING.values(), ids=LEAVING.keys())
def test_x05_r30_a_process_ends_at_once_with_half_a_stream(speakers: Any, code: str) -> None:
    speaker = speakers(None)
    speaker.plans = [speaker.then(event(chunk("a")), 20.0)]
    command = [sys.executable, "-X", "dev", "-c", BEGIN + textwrap.dedent(code), speaker.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ended = time.time()
    lines = [line for line in unhurried(done.stderr).splitlines() if "ResourceWarning" not in line]
    assert (done.returncode, lines) == (0, [])
    text, at = done.stdout.split()
    assert text == "a"
    assert ended - float(at) < 5
    until(speaker.hung_up.is_set)
