"""What is handed to a language verb is checked before anything is asked: each refusal says what, where, what to do."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.errors import InputError
from aiaas_sdk.prompts import NAMES, messages_of, sampling_of, texts_of
from aiaas_sdk.records.language import Attachment, Message, Sampling, ToolCall

PNG = Attachment(b"png", "image/png")


# ---------------------------------------------------------------- messages
def test_text_is_a_message_of_the_user() -> None:
    assert messages_of("hi") == (Message("user", "hi"),)
    assert messages_of("") == (Message("user", ""),)


def test_messages_are_records_or_mappings() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    found = messages_of(
        [
            Message("system", "be brief"),
            {"role": "user", "content": ["look", PNG, {"type": "text", "text": "!"}], "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call, ToolCall("2", "g", {"b": 2})]},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
        ]
    )
    assert found == (
        Message("system", "be brief"),
        Message("user", ["look", PNG, {"type": "text", "text": "!"}], name="ann"),
        Message("assistant", "", (ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "g", {"b": 2}))),
        Message("tool", "3", tool_call_id="1"),
    )
    assert found[1].text == "look!"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Message("user", "hi"), "the prompt is one message. Give a list of messages, or text"),
        ({"role": "user", "content": "hi"}, "the prompt is one message. Give a list of messages, or text"),
        (3, "the prompt is an int. Give text, or a list of messages"),
        (None, "the prompt is a NoneType. Give text"),
        (b"hi", "the prompt is a bytes. Give text"),
        (iter(["hi"]), "Give text, or a list of messages"),
        ([], "the prompt is an empty list. Give one message at least"),
        ("a\ud800", "the prompt has half a character at 1"),
        (["hi"], 'message 0 is a str. Give {"role": ..., "content": ...}'),
    ],
)
def test_a_prompt_that_is_none(prompt: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        messages_of(prompt)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": "x"}, 'message 1 has no role. As in {"role": "user", "content": "..."}'),
        ({"role": "boss", "content": "x"}, "message 1 has the role 'boss'. One of system, developer, user"),
        ({"role": ["user"], "content": "x"}, "message 1 has the role"),
        ({"role": "user", "content": "x", "nmae": "y"}, "message 1 has the unknown key 'nmae'"),
        ({"role": "user"}, "message 1 has content of type NoneType. Give text, or a list"),
        ({"role": "user", "content": 3}, "message 1 has content of type int. Give text, or a list"),
        ({"role": "user", "content": b"x"}, "message 1 has content of type bytes"),
        ({"role": "user", "content": [b"x"]}, "message 1 has a part of type bytes. Give text or aiaas.Attachment"),
        ({"role": "user", "content": [{"text": "x"}]}, "message 1 has a part without a type. As in"),
        ({"role": "user", "content": "\udfff"}, "message 1 has half a character at 0"),
        ({"role": "user", "content": ["\udfff"]}, "message 1 has half a character at 0"),
        ({"role": "user", "content": "x", "name": 3}, "message 1 has a name of type int. Give text"),
        ({"role": "tool", "content": "x", "tool_call_id": 3}, "message 1 has a tool_call_id of type int"),
        ({"role": "assistant", "tool_calls": 3}, "message 1 has tool_calls of type int. Give a list"),
        ({"role": "assistant", "tool_calls": "x"}, "message 1 has tool_calls of type str. Give a list"),
        ({"role": "assistant", "tool_calls": [3]}, "message 1 has a tool call that is none. Give aiaas.ToolCall("),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "message 1 has a tool call that is none"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
            "message 1 has a tool call with arguments of type list. Give a mapping",
        ),
        (Message("user", 3), "message 1 has content of type int"),  # type: ignore[arg-type]
        (Message("user", [3]), "message 1 has a part of type int"),  # type: ignore[list-item]
    ],
)
def test_a_message_that_is_none_is_named_by_its_place(message: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        messages_of([{"role": "system", "content": ""}, message])
    assert words in str(caught.value)


def test_records_check_themselves() -> None:
    with pytest.raises(InputError, match=r"the role 'boss'. One of system, developer, user, assistant, tool"):
        Message("boss", "x")
    for given_both_or_none in ({}, {"data": b"x", "url": "https://x"}):
        with pytest.raises(InputError, match="either data or url"):
            Attachment(**given_both_or_none)  # type: ignore[arg-type]


# ---------------------------------------------------------------- texts
def test_texts_to_embed() -> None:
    assert texts_of("a") == ("a",)
    assert texts_of(["a", ""]) == ("a", "")
    assert texts_of(("a",)) == ("a",)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "embed was given no text. Give one at least"),
        (3, "embed was given an int. Give a text, or a list of texts"),
        (b"a", "embed was given a bytes. Give a text"),
        ({"a": 1}, "embed was given a dict"),
        (["a", 3], "text 1 is an int. Give texts"),
        (["a", [1, 2]], "text 1 is a list"),
        (["a", "\ud83d"], "text 1 has half a character at 0"),
        ("\ud83d", "text 0 has half a character at 0"),
    ],
)
def test_texts_that_are_none(texts: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        texts_of(texts)
    assert words in str(caught.value)


# ---------------------------------------------------------------- sampling
def test_the_options_are_those_of_the_record() -> None:
    assert set(NAMES) == set(Sampling.__annotations__) - {"timeout"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 0.0, 2, 1.5], [-0.1, 2.01, math.nan, math.inf, 10**400, True, "1", [1], np.float32(1)]),
        ("top_p", [1e-9, 1], [0, -1, 1.1, math.nan, False, "0.5"]),
        ("top_k", [1, 2**31 - 1], [0, -1, 2**31, 1.0, True, "3"]),
        ("max_tokens", [1, 2**31 - 1], [0, -1, 2**31, 10**5000, 1.0, True, "9"]),
        ("seed", [-(2**63), 0, 2**63 - 1], [2**63, -(2**63) - 1, 0.5, True]),
        ("n", [1, 128], [0, 129, 1.0, True]),
        ("logprobs", [0, 20], [-1, 21, True, 0.5]),
        ("stop", ["a", ["a"], ("a", "b")], ["", [], ["a", ""], [3], 3, b"a", {"a"}, True]),
    ],
)
def test_the_bounds_of_each_option(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        wanted = value if name != "stop" else (value,) if isinstance(value, str) else tuple(value)
        assert sampling_of({name: value}) == {name: wanted}
    for value in bad:
        with pytest.raises(InputError, match=rf"^{name} is .+; it is (a |from |above )") as caught:
            sampling_of({name: value})
        assert len(str(caught.value)) < 200


def test_none_is_as_if_not_given() -> None:
    assert sampling_of({"temperature": None, "stop": None, "n": 2}) == {"n": 2}
    assert sampling_of({}) == {}


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown option of sampling 'temprature'. Did you mean 'temperature'"):
        sampling_of({"temprature": 1})
    with pytest.raises(InputError, match=r"unknown option of sampling 'xyz'. There are temperature, top_p, top_k"):
        sampling_of({"xyz": None})


KEYS = st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "type", "id", "user"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_whatever_is_given_is_taken_or_refused(value: Any) -> None:
    said = {"role": "user", "content": "", "tool_calls": value}
    with contextlib.suppress(InputError):
        messages_of(value)
    for message in (value, said, {**said, "content": value, "tool_calls": None}, {"role": value, "content": ""}):
        with contextlib.suppress(InputError):
            messages_of([message])
    with contextlib.suppress(InputError):
        texts_of(value)
    for name in NAMES:
        with contextlib.suppress(InputError):
            sampling_of({name: value})
