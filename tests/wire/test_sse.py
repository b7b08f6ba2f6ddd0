"""Server-sent events: however the bytes are cut, the same events come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.wire.sse import MAX_EVENT, Event, Events
from tests.stopwatch import Stopwatch

STREAM = (
    "\ufeff: a comment\r\n"
    "event: delta\r\n"
    "id: 7\r\n"
    "retry: 10\r\n"
    'data: {"text": "a\u2028b\u2029c\u0085d\x0be\x0cf"}\r\n'
    "\r\n"
    "data:unspaced\r\r"
    "data: one\n"
    "data:\n"
    "data:  three\n\n"
    ": ping\n\n"
    "event: nothing\n\n"
    "data: \u65e5\u672c\u8a9e \U0001f600\n\n"
    "data\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event("delta", '{"text": "a\u2028b\u2029c\u0085d\x0be\x0cf"}'.encode()),
    Event("message", b"unspaced"),
    Event("message", b"one\n\n three"),
    Event("message", "\u65e5\u672c\u8a9e \U0001f600".encode()),
    Event("message", b""),
    Event("message", b"[DONE]"),
]


def parse(*pieces: bytes) -> list[Event]:
    events = Events()
    return [event for piece in pieces for event in events.feed(piece)] + events.end()


def test_the_whole_stream_at_once() -> None:
    assert parse(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pieces_of_one_size(size: int) -> None:
    assert parse(*(STREAM[at : at + size] for at in range(0, len(STREAM), size))) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cuts(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    assert parse(*(STREAM[a:b] for a, b in itertools.pairwise(places))) == EVENTS


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_give_the_same_whatever_the_cuts(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert parse(*(data[a:b] for a, b in itertools.pairwise(places))) == parse(data)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_line_ends(end: str) -> None:
    assert parse(f"data: a{end}data: b{end}{end}data: c{end}{end}".encode()) == [
        Event("message", b"a\nb"),
        Event("message", b"c"),
    ]


def test_the_last_event_may_lack_its_blank_line_or_even_its_line_end() -> None:
    assert (
        parse(b"data: a\n\ndata: b\n")
        == parse(b"data: a\n\ndata: b")
        == [Event("message", b"a"), Event("message", b"b")]
    )


def test_an_endless_event_is_refused_in_linear_time() -> None:
    events, piece = Events(), b"x" * 65536
    watch = Stopwatch()
    events.feed(b"data: ")
    for _ in range(MAX_EVENT // len(piece) - 1):
        events.feed(piece)
    with pytest.raises(ProtocolError, match="larger than"):
        events.feed(piece)
    assert watch.took() < 2
