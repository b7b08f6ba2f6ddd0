"""Both parsers with the same bytes: what one takes the other takes, what one refuses the other refuses."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiaas_sdk.errors import ConnectionLostError, ProtocolError
from aiaas_sdk.flow import Request
from aiaas_sdk.transport import answer as answers
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.parsers import FastParser, PlainParser, make_parser

GET = Request("GET", "http://h/")
LENGTH = "inference-header-content-length"


@pytest.fixture(params=[FastParser, PlainParser])
def parse(request: pytest.FixtureRequest) -> Any:
    """Feeds pieces to a parser as a connection would."""
    parsers = [request.param()]

    def run(*pieces: bytes, request: Request = GET, whole: bool = True) -> Answer:
        try:
            return feed(parsers[0], pieces, Answer(request, whole), request.method)
        except ProtocolError:
            parsers[0] = type(parsers[0])()  # as with its connection, that's the end of it
            raise

    def feed(parser: Any, pieces: tuple[bytes, ...], answer: Answer, method: str) -> Answer:
        parser.begin(answer, method)
        for piece in pieces:
            if answer.room is not None:  # a connection receives straight into it
                size = min(len(piece), len(answer.room))
                answer.room[:size] = piece[:size]
                answer.filled(size)
                continue
            answer.arrived(len(piece))
            parser.feed(piece)
            answer.check()
        return answer

    return run


def body(answer: Answer) -> bytes:
    assert answer.done
    return bytes(answer.reply().body)


def test_a_sized_answer_is_done_with_its_last_byte_and_the_connection_is_reusable(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A:  b \r\n\r\nabcd")
    assert body(answer) == b"abcd"
    assert answer.reusable
    assert answer.headers == {"content-length": "4", "x-a": "b"}


def test_one_parser_serves_one_answer_after_another(parse: Any) -> None:
    for text in (b"a", b"b"):
        assert body(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + text)) == text


def test_an_answer_may_come_one_byte_at_a_time(parse: Any) -> None:
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: z\r\n\r\n"
    answer = parse(*[whole[i : i + 1] for i in range(len(whole))])
    assert body(answer) == b"abcde"
    assert answer.reusable
    assert "x-trailer" not in answer.headers


def test_interim_answers_are_passed_over(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n")
    assert (answer.status, answer.headers, body(answer)) == (204, {}, b"")
    assert answer.reusable


def test_values_of_one_name_stand_behind_one_another(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\ncontent-length: 0\r\n\r\n")
    assert answer.headers["a"] == "1, 2"


@pytest.mark.parametrize(
    ("whole", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
def test_a_connection_out_of_step_or_ended_is_not_reusable(parse: Any, whole: bytes, reusable: bool) -> None:
    answer = parse(whole)
    assert answer.done
    assert answer.reusable is reusable


def test_an_answer_to_head_has_no_body(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", request=Request("HEAD", "http://h/"))
    assert body(answer) == b""


@pytest.mark.parametrize(
    "rubbish",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_rubbish_is_refused(parse: Any, rubbish: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(rubbish)


def test_trailers_and_interim_answers_end_somewhere(parse: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with pytest.raises(ProtocolError):
        parse(head, *[b"x-trailer: " + b"y" * 1000 + b"\r\n"] * 200)
    with pytest.raises(ProtocolError):
        parse(*[b"HTTP/1.1 100 Continue\r\nx: " + b"y" * 1000 + b"\r\n\r\n"] * 200)


def test_a_body_is_no_larger_than_the_limit(parse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BODY", 10)
    assert body(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789")) == b"0123456789"
    with pytest.raises(ProtocolError, match="11"):
        parse(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n")
    with pytest.raises(ProtocolError, match="10"):
        parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"b\r\n01234567890\r\n")


def test_an_error_without_a_length_is_cut(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n", *[b"400\r\n" + b"x" * 1024 + b"\r\n"] * 70)
    assert len(body(answer)) == 65536
    assert not answer.reusable


def test_the_end_of_the_connection_ends_an_answer_only_where_nothing_else_does(parse: Any) -> None:
    answer = parse(b"HTTP/1.1 200 OK\r\n\r\nabc")
    answer.eof()
    assert body(answer) == b"abc"
    for cut in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na"):
        with pytest.raises(ConnectionLostError):
            (parse(cut) if cut else Answer(GET, True)).eof()


def test_a_stream_gives_what_came_and_is_not_limited(parse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BODY", 2)
    answer = parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n", whole=False)
    assert answer.taken() == b"abcdef"
    assert answer.taken() == b""
    assert not answer.done


# ---------------------------------------------------------------- where the bytes lie
@pytest.mark.parametrize("before", [0, 1, 63, 64, 167, 5000])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_what_lies_behind_the_named_bytes_is_aligned(parse: Any, framing: str, before: int) -> None:
    data = bytes(range(250)) * 30
    fields = f"HTTP/1.1 200 OK\r\n{LENGTH}: {before}\r\n".encode()
    if framing == "sized":
        whole = fields + b"content-length: %d\r\n\r\n" % len(data) + data
    else:
        whole = fields + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
    for pieces in ((whole,), (whole[:300], whole[300:400], whole[400:])):
        answer = parse(*pieces, request=Request("POST", "http://h/", align=LENGTH))
        assert body(answer) == data
        tensor = np.frombuffer(answer.reply().body[before:], np.uint8)
        assert tensor.ctypes.data % 64 == 0


@pytest.mark.parametrize("text", ["-1", "x", "99999999999999", "12, 12"])
def test_a_strange_count_places_the_body_anywhere(parse: Any, text: str) -> None:
    whole = f"HTTP/1.1 200 OK\r\n{LENGTH}: {text}\r\ncontent-length: 2\r\n\r\nok".encode()
    assert body(parse(whole, request=Request("POST", "http://h/", align=LENGTH))) == b"ok"


def test_h11_parses_where_httptools_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_parser(), FastParser)
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert isinstance(make_parser(), PlainParser)


# ---------------------------------------------------------------- one answer after another
BODIES = st.binary(max_size=40)
HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: a\r\ncontent-length: %d\r\n" + LENGTH.encode() + b": 3\r\n\r\n",
        b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 204 No\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, bool, list[bytes]]]:
    """Requests on one connection, and the bytes that come for each, cut anywhere."""
    heads = draw(st.lists(HEADS, min_size=1, max_size=2))
    found = []
    for _ in range(draw(st.integers(2, 5))):
        head, body, more = draw(st.sampled_from(heads)), draw(BODIES), draw(st.sampled_from([b"", b"", b"", b"x"]))
        text = (head % len(body) if b"%d" in head else head) + body + more
        cut = draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))
        pieces = [piece for piece in (text[:cut], text[cut:]) if piece]
        found.append((draw(st.sampled_from(["GET", "GET", "GET", "HEAD"])), draw(st.booleans()), pieces))
    return found


@given(conversations())
@settings(max_examples=400, deadline=None)
def test_an_answer_is_read_as_it_is_whatever_came_before_it(talk: list[tuple[str, bool, list[bytes]]]) -> None:
    kept = FastParser()
    for method, whole, pieces in talk:
        seen = told(kept, method, whole, pieces)
        assert seen == told(FastParser(), method, whole, pieces)
        if not seen[-1]:  # with its connection, that's the end of the parser
            kept = FastParser()


def told(parser: FastParser, method: str, whole: bool, pieces: list[bytes]) -> tuple[Any, ...]:
    """All that an answer tells, and whether the connection goes on."""
    answer = Answer(Request(method, "http://h/", align=LENGTH), whole)
    parser.begin(answer, method)
    try:
        for piece in pieces:
            if answer.done:
                return ("ended early", False)
            if answer.room is not None:
                return ("the rest goes past the parser", bytes(answer.room)[:0], False)
            answer.arrived(len(piece))
            parser.feed(piece)
            answer.check()
    except ProtocolError as error:
        return (str(error), False)
    state = (answer.status, dict(answer.headers), answer.headed, answer.done, bytes(answer.taken()))
    found = answer.reply().body if answer.done and whole else b""
    behind = int(answer.headers.get(LENGTH, "0"))
    if len(found) > behind:
        assert np.frombuffer(found, np.uint8)[behind:].ctypes.data % 16 == 0
        assert not memoryview(found).readonly
    return (*state, bytes(found), answer.reusable and answer.done)


def test_a_head_that_came_before_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parser, parsed = FastParser(), []
    monkeypatch.setattr(parser, "_parse", lambda data, parse=parser._parse: (parsed.append(data), parse(data)))
    for body in (b"ab", b"cd", b"ef"):
        seen = told(parser, "GET", True, [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + body])
        assert seen[-2:] == (body, True)
    assert len(parsed) == 1
