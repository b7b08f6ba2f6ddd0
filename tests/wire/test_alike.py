"""A chunk like the one before is read as if nothing had come before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from aiaas_sdk.backends.openai import _deltas
from aiaas_sdk.errors import AiaasError
from aiaas_sdk.wire import alike
from aiaas_sdk.wire.alike import Alike
from aiaas_sdk.wire.openai import Assembler, streams
from aiaas_sdk.wire.sse import Events

WRITTEN = (
    *(b"a", b" word", b"x", "é".encode(), "\u2028".encode(), b"", b"data: ", b"\x7f", b"<think>", b"</think>"),
    *(b"\\n", b"\\u00e9", b'\\"', b'{\\"content\\": \\"x\\"}'),  # escaped as they should be
    *(b'"', b'a","b":"c', b"\\", b"\n", b"\0", b"\xff", b"\xed\xa0\x80", b'a"}}]}'),  # and what is no JSON
)
"""Texts as they are written in a chunk."""
MORE: tuple[dict[str, Any], ...] = (
    {},
    {"finish_reason": "stop"},
    {"logprobs": {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]}},
    {"finish_reason": None, "logprobs": None},
)
AROUND: tuple[dict[str, Any], ...] = (
    {},
    {"error": None},
    {"usage": None},
    {"usage": {"prompt_tokens": 1}},
    {"content": "x"},
)


def forms() -> Iterator[bytes]:
    """Events, with TEXT where the text belongs."""
    for key, more, before, behind, count, space in product(
        ("content", "reasoning_content"), MORE, AROUND, AROUND, (1, 2), (" ", "")
    ):
        choice = {"index": 0, "delta": {key: "TEXT"}, **more}
        document = {**before, "choices": [choice] * count, **behind}
        yield b"data: " + json.dumps(document, separators=(f",{space}", f":{space}")).encode() + b"\n\n"


@pytest.mark.parametrize("cut", [0, 9])
@pytest.mark.parametrize("first", [b"x", b"<th"])
def test_a_chunk_is_read_as_it_is_whatever_came_before_it(first: bytes, cut: int) -> None:
    forgetful = Alike()
    forgetful._tries = 0
    for form in forms():
        for text in WRITTEN:
            second = form.replace(b"TEXT", text)
            came = [form.replace(b"TEXT", first), *filter(None, (second[:cut], second[cut:]))]
            assert heard(came, Alike()) == heard(came, forgetful)


def heard(came: list[bytes], seen: Alike) -> tuple[Any, ...]:
    answer, parsing, found = Assembler(), Events(), []
    try:
        for data in (b": hello\n\n", *came, b""):
            text = seen.text(data) if parsing.between else None
            deltas = _deltas(data, answer, parsing, seen) if text is None else answer.more(text)
            found += [(delta.text, delta.reasoning) for delta in deltas]
    except AiaasError as error:
        found.append((type(error).__name__, str(error)))
    return (*found, answer.text, answer.begun, answer.finished, answer._reason, answer._usage, answer._logprobs)


def chunk(text: str, id: str = "c") -> bytes:
    return b"data: " + json.dumps({"id": id, "choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(("ids", "parsed"), [(["c"] * 50, 1), ([str(number) for number in range(50)], 50)])
def test_one_chunk_in_full_and_of_the_others_the_text(
    monkeypatch: pytest.MonkeyPatch, ids: list[str], parsed: int
) -> None:
    looked, full = [], streams.parsed
    monkeypatch.setattr(streams, "parsed", lambda data, what: (looked.append(1), full(data, what))[1])
    learned = []
    learn = Alike.learn
    monkeypatch.setattr(Alike, "learn", lambda self, data, text: (learned.append(self._tries), learn(self, data, text)))
    told = heard([chunk(f" word{number}", id) for number, id in enumerate(ids)], Alike())
    assert told[50] == "".join(f" word{number}" for number in range(50))
    assert len(looked) == parsed
    assert sum(tries > 0 for tries in learned) == min(parsed, alike.TRIES)


def test_another_member_of_the_same_name_is_not_taken_for_the_text() -> None:
    came = [chunk("x").replace(b'"id": "c"', b'"content": "%b"' % other) for other in (b"x", b"y", b"z")]
    assert heard(came, Alike())[:3] == (("x", ""),) * 3
