"""OpenAI's API as bytes: what is sent, what is read, and that nothing that a peer may say comes out as a bare error."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.errors import (
    AiaasError,
    AuthenticationError,
    ContextLengthError,
    InputError,
    InvalidRequestError,
    ModelNotFoundError,
    OutputError,
    ProtocolError,
    RateLimitedError,
    UnavailableError,
    UnsupportedOperationError,
)
from aiaas_sdk.records.chat import Chat, Choice, Spoken, ToolSpec
from aiaas_sdk.records.language import Attachment, Message, ToolCall
from aiaas_sdk.wire import openai as wire
from aiaas_sdk.wire.status import status_error

ASKED = Chat((Message("user", "hi"),), text="hi")
PNG = Attachment(b"png", "image/png")


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def answer(*, usage: Any = None, reason: Any = "stop", logprobs: Any = None, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, "logprobs": logprobs}
    return body({"choices": [choice], "usage": usage})


def read(**told: Any) -> Choice:
    return wire.decode_answer(answer(**told), ASKED).choices[0]


def call(name: Any, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


# ---------------------------------------------------------------- requests
def test_a_conversation_is_written() -> None:
    said = (
        Message("system", "be brief"),
        Message("user", ["what is", {"type": "text", "text": " this"}, PNG], name="ann"),
        Message("assistant", "", (ToolCall("1", "look", {"at": "it"}), ToolCall("2", "look", "{not json"))),
        Message("tool", "a cat", tool_call_id="1", name="look"),
    )
    assert wire.encode_chat("m", Chat(said)) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "what is"},
                    {"type": "text", "text": " this"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call("look", '{"at": "it"}', id="1"), call("look", "{not json", id="2")],
            },
            {"role": "tool", "content": "a cat", "tool_call_id": "1"},
        ],
    }


@pytest.mark.parametrize(
    ("attachment", "part"),
    [
        (Attachment(media_type="image/png", url="https://x/y"), {"type": "image_url", "image_url": {"url": "https://x/y"}}),
        (Attachment(b"a", "audio/wav"), {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "wav"}}),
        (Attachment(b"a", "audio/mpeg"), {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "mp3"}}),
        (
            Attachment(b"a", "application/pdf", "b.pdf"),
            {"type": "file", "file": {"filename": "b.pdf", "file_data": "data:application/pdf;base64,YQ=="}},
        ),
    ],
)  # fmt: skip
def test_attachments_are_parts(attachment: Attachment, part: Any) -> None:
    [message] = wire.encode_chat("m", Chat((Message("user", [attachment]),)))["messages"]
    assert message["content"] == [part]


@pytest.mark.parametrize(
    ("attachment", "words"),
    [
        (Attachment(b"a", "audio/flac"), "audio/flac isn't a sound that this API takes. One of audio/wav"),
        (Attachment(media_type="audio/wav", url="https://x"), "audio/wav can't be given by url here. Give its data"),
        (Attachment(media_type="text/plain", url="https://x"), "text/plain can't be given by url here"),
    ],
)
def test_attachments_that_the_api_has_no_place_for(attachment: Attachment, words: str) -> None:
    with pytest.raises(InputError) as caught:
        wire.encode_chat("m", Chat((Message("user", [attachment]),)))
    assert words in str(caught.value)


def test_options_tools_and_schema_are_written() -> None:
    chat = Chat(
        ASKED.messages,
        sampling={
            "temperature": 0.5,
            "top_k": 3,
            "max_tokens": 9,
            "stop": ("a", "b"),
            "seed": 1,
            "n": 2,
            "logprobs": 4,
        },
        tools=(ToolSpec("f", "does", {"type": "object"}), ToolSpec("g", "", {}, strict=True)),
        schema=("Point", {"type": "object"}),
    )
    written = wire.encode_chat("m", chat, dialect=wire.Dialect(limit="max_completion_tokens"), stream=True)
    del written["messages"]
    assert written == {
        "model": "m",
        "temperature": 0.5,
        "top_k": 3,
        "max_completion_tokens": 9,
        "stop": ["a", "b"],
        "seed": 1,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "g", "description": "", "parameters": {}, "strict": True}},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "Point", "schema": {"type": "object"}}},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert wire.encode_chat("m", chat)["max_tokens"] == 9
    assert "stream" not in wire.encode_chat("m", chat)


def test_a_text_to_continue_is_written() -> None:
    chat = Chat(ASKED.messages, "once", {"max_tokens": 2, "logprobs": 0})
    assert wire.encode_completion("m", chat) == {"model": "m", "prompt": "once", "max_tokens": 2, "logprobs": 0}
    assert wire.encode_completion("m", chat, stream=True)["stream"] is True


@pytest.mark.parametrize(
    "chat",
    [
        Chat(ASKED.messages),
        Chat(ASKED.messages, "x", tools=(ToolSpec("f", "", {}),)),
        Chat(ASKED.messages, "x", schema=("a", {})),
    ],
)
def test_completions_take_texts_only(chat: Chat) -> None:
    with pytest.raises(UnsupportedOperationError, match="Load the address without /completions"):
        wire.encode_completion("m", chat)


def test_texts_to_embed_are_written() -> None:
    asked = {"model": "m", "input": ["a", "b"], "encoding_format": "base64"}
    assert wire.encode_embeddings("m", ("a", "b"), None) == asked
    assert wire.encode_embeddings("m", ("a", "b"), 3) == {**asked, "dimensions": 3}


@pytest.mark.parametrize("arguments", [{"a": object()}, {"a": float("nan")}, {"a": b"x"}])
def test_arguments_that_are_no_json_are_refused(arguments: Any) -> None:
    with pytest.raises(InputError, match="the tool 'f' has arguments that JSON can't hold"):
        wire.encode_chat("m", Chat((Message("assistant", "", (ToolCall("1", "f", arguments),)),)))


@pytest.mark.parametrize("part", [{"type": "x", "x": object()}, {"type": "text", "text": "\ud800"}])
def test_a_body_that_is_no_json_is_refused(part: Any) -> None:
    with pytest.raises(InputError, match=r"can't be written as JSON: .+ Give plain values"):
        wire.encoded(wire.encode_chat("m", Chat((Message("user", [part]),))))


# ---------------------------------------------------------------- answers
def test_an_answer_is_read() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    found = wire.decode_answer(answer(content="yes", usage=usage), ASKED)
    assert found == Spoken((Choice("yes", "stop"),), 3, 2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ("a", "a"),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}, 3, {"text": None}], "ab"),
    ],
)
def test_content_is_text_or_parts_or_none(content: Any, text: str) -> None:
    assert read(content=content).text == text


def test_a_refusal_is_told_and_is_no_answer() -> None:
    found = read(content=None, refusal="I won't.")
    assert (found.text, found.finish_reason) == ("I won't.", "content_filter")
    assert read(content="a", refusal=None).finish_reason == "stop"
    heard = wire.Assembler()
    deltas = [
        delta
        for chunk in ({"refusal": "I "}, {"refusal": "won't."}, {})
        for delta in heard.take(body({"choices": [{"delta": chunk, "finish_reason": None if chunk else "stop"}]}))
    ]
    assert [delta.text for delta in deltas] == ["I ", "won't."]
    assert heard.spoken(ASKED).choices == (found,)


@pytest.mark.parametrize(
    ("reason", "calls", "found"),
    [
        ("length", [], "length"),
        ("eos", [], "eos"),
        (None, [], "stop"),
        ("", [], "stop"),
        (7, [], "stop"),
        (None, [call("f", "{}", id="1")], "tool_calls"),
    ],
)
def test_the_finish_reason_is_told_or_plain(reason: Any, calls: Any, found: str) -> None:
    assert read(content="a", reason=reason, tool_calls=calls).finish_reason == found


def test_choices_are_in_the_order_of_their_index() -> None:
    choices = [{"index": place, "message": {"content": str(place)}} for place in (2, 0, 1)]
    found = wire.decode_answer(body({"choices": choices}), Chat(ASKED.messages, sampling={"n": 3}))
    assert [choice.text for choice in found.choices] == ["0", "1", "2"]


def test_what_was_asked_for_and_left_out_is_an_error() -> None:
    with pytest.raises(UnsupportedOperationError, match="n=2 was asked for, and the peer gave 1"):
        wire.decode_answer(answer(content="a"), Chat(ASKED.messages, sampling={"n": 2}))
    with pytest.raises(UnsupportedOperationError, match="logprobs were asked for, and the peer gave none"):
        wire.decode_answer(answer(content="a"), Chat(ASKED.messages, sampling={"logprobs": 0}))


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ("many", (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (None, None)),
        ({"prompt_tokens": 3}, (3, None)),
        ({"prompt_tokens": 3, "completion_tokens": 0}, (3, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 2.0, "completion_tokens": 4}, (None, 4)),
    ],
)
def test_usage_that_isnt_told_is_unknown(usage: Any, counts: tuple[Any, Any]) -> None:
    found = wire.decode_answer(answer(content="a", usage=usage), ASKED)
    assert (found.input_tokens, found.output_tokens) == counts


# ---------------------------------------------------------------- probabilities
def test_probabilities_come_in_two_forms() -> None:
    chats = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}]
    assert read(content="a", logprobs={"content": chats}).logprobs == chats
    completions = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1.0}], "text_offset": [0]}
    assert read(content="a", logprobs=completions).logprobs == chats


@pytest.mark.parametrize("tops", [None, [], [None], [[]], ["x"], "x"])
def test_the_likeliest_others_may_be_missing(tops: Any) -> None:
    told = {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": tops}
    assert read(content="a", logprobs=told).logprobs == [{"token": "a", "logprob": None, "top_logprobs": []}]


@pytest.mark.parametrize("told", [None, "x", [], {}, {"content": None}, {"content": [1]}, {"tokens": ["a"]}])
def test_what_is_no_probability_is_none(told: Any) -> None:
    assert read(content="a", logprobs=told).logprobs is None


# ---------------------------------------------------------------- thought
@pytest.mark.parametrize(
    ("message", "reasoning", "text"),
    [
        ({"content": "a", "reasoning_content": "hm"}, "hm", "a"),
        ({"content": "a", "reasoning": "hm"}, "hm", "a"),
        ({"content": "a", "reasoning_content": ""}, None, "a"),
        ({"content": "a", "reasoning": {"effort": 3}}, None, "a"),
        ({"content": "\n<think>\nhm\n</think>\n\na"}, "hm", "a"),
        ({"content": "<think>\n\n</think>\n\na"}, None, "a"),
        ({"content": "<think>hm"}, "hm", ""),
        ({"content": "a <think>b</think>"}, None, "a <think>b</think>"),
    ],
)
def test_thought_is_kept_apart(message: Any, reasoning: str | None, text: str) -> None:
    found = read(**message)
    assert (found.reasoning, found.text) == (reasoning, text)


THOUGHTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "\n", " ", "a", "hm ", "</thin", "<thi"]),
    max_size=12,
).map("".join)


@given(THOUGHTS, st.lists(st.integers(0, 60), max_size=8))
def test_thought_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    heard = wire.Assembler()
    edges = [0, *sorted(cuts), max(len(text), 60)]
    for start, end in itertools.pairwise(edges):
        heard.take(body({"choices": [{"delta": {"content": text[start:end]}}]}))
    heard.take(b"[DONE]")
    assert heard.spoken(ASKED).choices == (read(content=text),)


# ---------------------------------------------------------------- tools
def test_calls_of_tools_are_read() -> None:
    found = read(
        content=None, tool_calls=[call("f", '{"a": 1}', id="x"), call("g", {"b": 2}, id="y"), call("h", "{no", id="z")]
    )
    assert found.tool_calls == (ToolCall("x", "f", {"a": 1}), ToolCall("y", "g", {"b": 2}), ToolCall("z", "h", "{no"))
    assert read(content=None, tool_calls=[call("f", "[1]", id="x")]).tool_calls == (ToolCall("x", "f", "[1]"),)


@pytest.mark.parametrize(
    "more", [{}, {"index": 0}, {"id": ""}, {"id": None, "index": 0}, {"id": "same"}, {"index": []}]
)
def test_calls_of_a_whole_answer_are_as_many_as_it_has(more: Any) -> None:
    calls = [call("f", '{"a": 1}', **more), call("g", None, **more)]
    found = read(content="", tool_calls=calls).tool_calls
    assert [(one.name, one.arguments) for one in found] == [("f", {"a": 1}), ("g", {})]
    assert all(one.id for one in found)


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "type": "invalid_request_error"}, InvalidRequestError),
        ({"message": "m", "code": 401}, AuthenticationError),
        ({"message": "m", "type": "rate_limit_error"}, RateLimitedError),
        ({"message": "m", "code": "insufficient_quota"}, RateLimitedError),
        ({"message": "m", "http_status_code": 404}, ModelNotFoundError),
        ({"message": "m", "code": "context_length_exceeded", "type": "invalid_request_error"}, ContextLengthError),
        ({"message": "m", "code": 200}, UnavailableError),
        ("m", UnavailableError),
    ],
)
def test_an_error_under_a_success_is_of_its_own_class(error: Any, kind: type[AiaasError]) -> None:
    for ask in (lambda told: wire.decode_answer(told, ASKED), wire.Assembler().take):
        with pytest.raises(kind, match="m") as caught:
            ask(body({"error": error}))
        assert type(caught.value) is kind


def test_an_output_that_didnt_fit_is_told_with_its_text() -> None:
    told = body({"error": {"message": "no", "code": "output_mismatch", "output": "raw"}})
    error = wire.coded_error(told, status_error(502, {"x-request-id": "r"}, told, verb=True))
    assert isinstance(error, OutputError)
    assert (error.text, error.status, error.request_id) == ("raw", 502, "r")


# ---------------------------------------------------------------- models
@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"data": [{"id": "a", "owned_by": "me"}, {"id": "b"}]}, [("a", "me"), ("b", "")]),
        ({"data": []}, []),
        ({"data": None}, []),
        ({"object": "list"}, []),
        ({"data": [{"id": 3}, "x", {"name": "y"}, {"id": "a", "owned_by": None}]}, [("a", "None")]),
    ],
)
def test_models_are_read_as_far_as_they_are_told(document: Any, found: Any) -> None:
    assert wire.decode_models(body(document)) == found


# ---------------------------------------------------------------- vectors
def packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_vectors_are_put_in_the_order_of_their_index(order: list[int], listed: set[int]) -> None:
    entries = [
        {"index": place, "embedding": [place, 0.5] if place in listed else packed(place, 0.5)} for place in order
    ]
    found = wire.decode_embeddings(body({"data": entries, "usage": {"prompt_tokens": 7}}), 5)
    assert found.array.dtype == np.float32
    assert found.array.tolist() == [[place, 0.5] for place in range(5)]
    assert found.input_tokens == 7


def test_vectors_without_an_index_are_in_order() -> None:
    found = wire.decode_embeddings(body({"data": [{"embedding": [1]}, {"embedding": [2]}]}), 2)
    assert found.array.tolist() == [[1], [2]]


@given(st.lists(st.one_of(st.integers(-1, 4), st.sampled_from([None, "0", 1.0, True])), max_size=5))
def test_any_other_indices_are_an_error(indices: list[Any]) -> None:
    told = body({"data": [{"index": index, "embedding": [1.0]} for index in indices]})
    if sorted(map(repr, indices)) == ["0", "1", "2"]:
        assert wire.decode_embeddings(told, 3).array.shape == (3, 1)
    else:
        with pytest.raises(ProtocolError, match="3 texts were sent"):
            wire.decode_embeddings(told, 3)


@pytest.mark.parametrize(
    "vector",
    [None, [], "", "AAA", "AAAA", "no base64!", ["1"], [[1.0]], [True], [None], {"0": 1}, [10**400]],
)
def test_what_is_no_vector_is_an_error(vector: Any) -> None:
    with pytest.raises(ProtocolError, match="embedding 0 isn't a vector of numbers"):
        wire.decode_embeddings(body({"data": [{"index": 0, "embedding": vector}]}), 1)


def test_vectors_have_one_length() -> None:
    with pytest.raises(ProtocolError, match="different lengths"):
        wire.decode_embeddings(body({"data": [{"embedding": [1]}, {"embedding": packed(1, 2)}]}), 2)


# ---------------------------------------------------------------- whatever a peer may say
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 600), st.just(10**400), st.floats(), st.text(max_size=4),
    st.sampled_from(["stop", "<think>", "</think>", "f", "{}", '{"a":1}', "rate_limit_error", "AACAPw=="]),
)  # fmt: skip
KEYS = st.sampled_from(
    [
        *(
            "arguments",
            "choices",
            "code",
            "content",
            "data",
            "delta",
            "embedding",
            "error",
            "finish_reason",
            "function",
        ),
        *("id", "index", "logprobs", "message", "name", "prompt_tokens", "reasoning", "refusal", "role", "status"),
        *("text", "token_logprobs", "tokens", "tool_calls", "top_logprobs", "type", "usage"),
    ]
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
CALLS = st.lists(
    st.fixed_dictionaries({}, optional={"index": ANYTHING, "id": ANYTHING, "function": ANYTHING}), max_size=3
)
SAID = st.fixed_dictionaries(
    {}, optional={"content": ANYTHING, "tool_calls": CALLS | ANYTHING, "reasoning": ANYTHING, "refusal": ANYTHING}
)
PROBABILITIES = st.fixed_dictionaries(
    {}, optional={"content": ANYTHING, "tokens": ANYTHING, "token_logprobs": ANYTHING, "top_logprobs": ANYTHING}
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": ANYTHING,
        "message": SAID | ANYTHING,
        "delta": SAID | ANYTHING,
        "text": ANYTHING,
        "finish_reason": ANYTHING,
        "logprobs": PROBABILITIES | ANYTHING,
    },
)
ANSWERS = st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2) | ANYTHING}, optional={"usage": ANYTHING})
VECTORS = st.fixed_dictionaries(
    {"data": st.lists(st.fixed_dictionaries({}, optional={"index": ANYTHING, "embedding": ANYTHING}))}
)
BODIES = st.one_of(
    (ANSWERS | VECTORS | ANYTHING | st.fixed_dictionaries({"error": ANYTHING})).map(body), st.binary(max_size=20)
)
RICH = Chat(ASKED.messages, "hi", {"logprobs": 1})


@given(st.lists(CALLS, max_size=3), PROBABILITIES)
def test_whatever_pieces_come_are_calls(pieces: list[Any], logprobs: Any) -> None:
    found = wire.Assembler()
    for piece in pieces:
        found.take(body({"choices": [{"delta": {"tool_calls": piece}, "logprobs": logprobs}]}))
    [choice] = found.spoken(ASKED).choices
    assert all(isinstance(one.name, str) and one.id for one in choice.tool_calls)
    assert choice.logprobs is None or all(isinstance(token, dict) for token in choice.logprobs)


def heard(told: bytes) -> Spoken:
    found = wire.Assembler()
    found.take(told)
    found.take(told)
    found.calls()
    return found.spoken(RICH)


@pytest.mark.parametrize(
    "reading",
    [
        lambda told: wire.decode_answer(told, ASKED),
        lambda told: wire.decode_answer(told, RICH),
        lambda told: wire.decode_embeddings(told, 1),
        wire.decode_models,
        heard,
        lambda told: wire.coded_error(told, status_error(400, {}, told, verb=True)),
    ],
    ids=["answer", "asked for more", "embeddings", "models", "stream", "error"],
)  # fmt: skip
@given(told=BODIES)
def test_whatever_comes_is_read_or_an_error_of_ours(reading: Callable[[bytes], Any], told: bytes) -> None:
    try:
        found = reading(told)
    except AiaasError:
        return
    if isinstance(found, Spoken):
        for choice in found.choices:
            assert isinstance(choice.text, str)
            assert isinstance(choice.finish_reason, str)
            assert all(isinstance(one.name, str) and one.id for one in choice.tool_calls)


@pytest.mark.parametrize(
    "told", [b"", b"null", b"[]", b"<html>", b"[" * 100_000, b"1" * 5_000, b'{"a": "\\ud800"}', b"\xff"]
)
def test_what_is_no_json_object_is_said_so(told: bytes) -> None:
    with pytest.raises(ProtocolError, match="is no JSON object"):
        wire.decode_answer(told, ASKED)
    with pytest.raises(ProtocolError, match="is no JSON object"):
        wire.decode_embeddings(told, 1)
    with pytest.raises(ProtocolError, match="is no JSON object"):
        wire.Assembler().take(told)
    with pytest.raises(ProtocolError, match="is no JSON object"):
        wire.decode_models(told)
