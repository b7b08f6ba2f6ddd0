"""OpenAI's API over real connections: what goes out byte for byte, odd requests, and what isn't well."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread, streaming
from tests.talker import STEPS

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
USER = {"role": "user", "content": "hello big world"}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "strict": True,
    },
}


@pytest.fixture(scope="module")
def client(talker: str) -> Iterator[Any]:
    """A server with the models `echo`, `org/name` (an echo, too) and `talker`."""
    from tests.server.conftest import Client

    with serve_in_thread(["echo=echo:", "org/name=echo:", f"talker={talker}"]) as url:
        client = Client(url)
        yield client
        client.connection.close()


def asking(*said: Any, model: str = "echo", **members: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": words} if isinstance(words, str) else words for words in said or [USER]]
    return {"model": model, "messages": messages, **members}


def answer_of(reply: Any) -> Any:
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.document


def refused(reply: Any, status: int, words: str = "", **members: Any) -> dict[str, Any]:
    """The error of an answer, which has all four keys and nothing behind its type."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    error = reply.document["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert words in error["message"]
    assert {name: error[name] for name in members} == members
    return error


def events(reply: Any) -> list[Any]:
    """The data of each event of a whole stream; the last is [DONE] where the stream ended well."""
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *pieces, rest = reply.body.split(b"\n\n")
    assert rest == b""
    assert all(piece.startswith(b"data: ") for piece in pieces)
    data = [piece.removeprefix(b"data: ") for piece in pieces]
    return [json.loads(one) if one != b"[DONE]" else "[DONE]" for one in data]


# ---------------------------------------------------------------- models
def test_models_are_listed_for_openai_and_for_kserve(client: Any) -> None:
    found = answer_of(client("GET", "/v1/models"))
    assert found["object"] == "list"
    assert [entry["id"] for entry in found["data"]] == found["models"] == ["echo", "org/name", "talker"]
    for entry in found["data"]:
        assert entry["object"] == "model"
        assert entry["owned_by"] == "aiaas"
        assert abs(entry["created"] - time.time()) < 1000


@pytest.mark.parametrize("path", ["echo", "org/name", "org%2Fname", "%65cho"])
def test_a_model_is_told_whatever_its_name_is(client: Any, path: str) -> None:
    found = answer_of(client("GET", f"/v1/models/{path}"))
    name = "echo" if "/" not in path and "%2F" not in path else "org/name"
    assert (found["id"], found["object"]) == (name, "model")
    assert (found["name"], found["ready"]) == (name, True)  # what KServe's client reads


def test_a_model_that_isnt_there_is_told_so(client: Any) -> None:
    refused(client("GET", "/v1/models/org/none"), 404, "org/none", code="model_not_found")
    for path in (CHAT, TEXT, EMBED):
        asked = {**asking(), "prompt": "x", "input": "x", "model": "none"}
        refused(client("POST", path, asked), 404, "'none'", code="model_not_found", type="invalid_request_error")


def test_a_model_that_isnt_ready_is_listed_and_unavailable(serving: Any) -> None:
    client = serving("far=openai+http://127.0.0.1:9/v1#x", retry=None)
    assert client("GET", "/v1/models").document["models"] == ["far"]
    reply = client("GET", "/v1/models/far")
    refused(reply, 503, type="service_unavailable")


def test_a_served_name_may_hold_slashes_and_no_way_out(serving: Any) -> None:
    client = serving("openai+http://127.0.0.1:9/v1#meta/llama", "openai+http://127.0.0.1:9/v1", retry=None)
    assert client("GET", "/v1/models").document["models"] == ["meta/llama", "openai"]
    for name in ("a/../b", "a//b", "a/"):
        with pytest.raises(aiaas.AddressError), serve_in_thread([f"{name}=echo:"]):
            pass


# ---------------------------------------------------------------- chats
def test_an_answer_is_of_openais_form(client: Any) -> None:
    found = answer_of(client("POST", CHAT, asking()))
    assert found.pop("id").startswith("chatcmpl-")
    assert abs(found.pop("created") - time.time()) < 100
    assert found == {
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello big world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }


def test_a_stream_has_the_role_first_and_the_reason_in_its_own_piece(client: Any) -> None:
    *pieces, done = events(client("POST", CHAT, asking(stream=True)))
    assert done == "[DONE]"
    assert len({(piece["id"], piece["object"], piece["created"], piece["model"]) for piece in pieces}) == 1
    assert (pieces[0]["object"], pieces[0]["model"]) == ("chat.completion.chunk", "echo")
    assert not any("usage" in piece for piece in pieces)
    assert all(len(piece["choices"]) == 1 and piece["choices"][0]["index"] == 0 for piece in pieces)
    choices = [piece["choices"][0] for piece in pieces]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [choice["delta"] for choice in choices[1:-1]] == [
        {"content": "hello"},
        {"content": " big"},
        {"content": " world"},
    ]
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]


def test_usage_is_told_in_a_piece_without_choices_where_it_is_asked_for(client: Any) -> None:
    *pieces, last, done = events(client("POST", CHAT, asking(stream=True, stream_options={"include_usage": True})))
    assert done == "[DONE]"
    assert all(piece["usage"] is None for piece in pieces)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert last["id"] == pieces[0]["id"]


def test_usage_that_nobody_knows_isnt_told_as_0(client: Any) -> None:
    assert "usage" not in answer_of(client("POST", CHAT, asking(model="talker")))
    asked = asking(model="talker", stream=True, stream_options={"include_usage": True})
    assert all(piece["usage"] is None for piece in events(client("POST", CHAT, asked))[:-1])


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_options_of_sampling_are_taken(client: Any, name: str) -> None:
    asked = asking(n=2, temperature=0, top_p=1, top_k=5, seed=7, stop=["world"], **{name: 1})
    found = answer_of(client("POST", CHAT, asked))
    told = [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in found["choices"]]
    assert told == [(0, "hello", "length"), (1, "hello", "length")]
    assert found["usage"]["completion_tokens"] == 2
    assert answer_of(client("POST", CHAT, asking(stop="big")))["choices"][0]["message"]["content"] == "hello "
    assert answer_of(client("POST", CHAT, asking(stop=[])))["choices"][0]["message"]["content"] == "hello big world"


def test_probabilities_of_tokens_are_told_whole_and_at_the_end_of_a_stream(client: Any) -> None:
    def token(text: str, **more: Any) -> dict[str, Any]:
        return {"token": text, "logprob": 0.0, "bytes": None, **more}

    found = answer_of(client("POST", CHAT, asking("a b", logprobs=True, top_logprobs=1)))["choices"][0]
    wanted = [token(text, top_logprobs=[token(text)]) for text in ("a", " b")]
    assert found["logprobs"] == {"content": wanted, "refusal": None}
    *pieces, done = events(client("POST", CHAT, asking("a b", logprobs=True, top_logprobs=1, stream=True)))
    assert done == "[DONE]"
    assert [piece["choices"][0]["logprobs"] for piece in pieces] == [None] * 3 + [found["logprobs"]]
    bare = answer_of(client("POST", CHAT, asking("a", logprobs=True)))["choices"][0]["logprobs"]
    assert bare["content"] == [token("a", top_logprobs=[])]


def test_messages_of_every_kind_are_taken(client: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    said = [
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "what"}, {"type": "text", "text": " is it"}],
        },
        # as it came from here, with all that stood in it
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": [], "audio": None},
        {"role": "tool", "tool_call_id": "c1", "content": "three things"},
    ]
    assert answer_of(client("POST", CHAT, asking(*said)))["choices"][0]["message"]["content"] == "three things"
    parts = answer_of(client("POST", CHAT, asking(said[2])))
    assert parts["choices"][0]["message"]["content"] == "what is it"


def test_what_changes_nothing_is_passed_over(client: Any) -> None:
    asked = asking(user="u", store=True, metadata={"a": "b"}, frequency_penalty=0, presence_penalty=0.0, logit_bias={},
                   service_tier="auto", parallel_tool_calls=False, modalities=["text"], tool_choice="auto", tools=[],
                   temperature=None, stop=None, n=None, response_format={"type": "text"}, new=[1])  # fmt: skip
    assert answer_of(client("POST", CHAT, asked))["choices"][0]["message"]["content"] == "hello big world"


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"temperature": 9}, "temperature", "from 0 to 2"),
        ({"top_p": 0}, "top_p", "top_p"),
        ({"n": 0}, "n", "from 1 to 128"),
        ({"n": 2, "stream": True}, "n", "one answer"),
        ({"max_tokens": "9"}, "max_tokens", "whole number"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "whole number"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "give one"),
        ({"stop": [""]}, "stop", "empty"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"logprobs": 2}, "logprobs", "true or false"),
        ({"top_logprobs": 2}, "top_logprobs", "without logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs", "20"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "isn't offered"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "isn't offered"),
        ({"functions": [{"name": "x"}]}, "functions", "isn't offered"),
        ({"modalities": ["audio"]}, "modalities", "isn't offered"),
        ({"tools": [ADD], "tool_choice": "required"}, "tool_choice", "auto"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice", "auto"),
        ({"tools": [ADD], "parallel_tool_calls": False}, "parallel_tool_calls", "forbidden"),
        ({"tools": [ADD, ADD]}, "tools", "two tools"),
        ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
        ({"tools": [{"type": "function"}]}, "tools", "no function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, "tools", "wrong type"),
        ({"tools": {}}, "tools", "list"),
        ({"tools": ["add"]}, "tools", "str"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format", "no schema"),
        ({"response_format": "json"}, "response_format", "object"),
        ({"model": None}, "model", "missing"),
        ({"model": ""}, "model", "missing"),
        ({"model": 3}, "model", "name"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": []}, "messages", "empty"),
        ({"messages": "hello"}, "messages", "list of messages"),
        ({"messages": ["hello"]}, "messages", "message 0"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages", "king"),
        ({"messages": [{"role": "user"}]}, "messages", "message 0"),
        ({"messages": [{"content": "x"}]}, "messages", "role"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages", "part"),
        ({"messages": [{"role": "assistant", "content": None, "function_call": {}}]}, "messages", "function_call"),
    ],
)  # fmt: skip
def test_what_cant_be_is_refused_and_the_member_named(client: Any, members: Any, param: str, words: str) -> None:
    reply = client("POST", CHAT, {**asking(), **members})
    refused(reply, 400, words, param=param, type="invalid_request_error", code=None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"null", b"[" * 600 + b"]" * 600])
@pytest.mark.parametrize("path", [CHAT, TEXT, EMBED])
def test_a_body_that_is_no_json_object_is_refused(client: Any, body: bytes, path: str) -> None:
    refused(client("POST", path, body), 400, "JSON", param=None)


def test_the_content_type_is_nobodys_business(client: Any) -> None:
    body = json.dumps(asking()).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"):
        assert client("POST", CHAT, body, {"content-type": kind}).status == 200


# ---------------------------------------------------------------- tools, schemas, thoughts
def test_a_call_of_a_tool_is_told_whole_and_in_a_stream(client: Any) -> None:
    text = 'add({"a": 1})\nadd({"a": 2})'
    choice = answer_of(client("POST", CHAT, asking(text, tools=[ADD])))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls = choice["message"]["tool_calls"]
    assert [(call["type"], call["function"]["name"]) for call in calls] == [("function", "add")] * 2
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1}, {"a": 2}]
    assert len({call["id"] for call in calls}) == 2
    *pieces, done = events(client("POST", CHAT, asking(text, tools=[ADD], stream=True)))
    assert done == "[DONE]"
    streamed = [call for piece in pieces for call in piece["choices"][0]["delta"].get("tool_calls", ())]
    assert [call.pop("index") for call in streamed] == [0, 1]
    assert streamed == calls
    assert pieces[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_is_offered_where_none_may_be_chosen(client: Any) -> None:
    found = answer_of(client("POST", CHAT, asking('add({"a": 1})', tools=[ADD], tool_choice="none")))
    assert found["choices"][0]["message"]["content"] == 'add({"a": 1})'


def test_a_wanted_document_stands_alone(client: Any) -> None:
    schema = {"name": "x", "strict": True, "schema": {"type": "array"}}
    for form, text, wanted in (
        ({"type": "json_object"}, 'Here: {"a": 1}. Well?', '{"a": 1}'),
        ({"type": "json_schema", "json_schema": schema}, '```json\n[{"a": 1}, {}]\n```', '[{"a": 1}, {}]'),
    ):
        found = answer_of(client("POST", CHAT, asking(text, response_format=form)))
        assert found["choices"][0]["message"]["content"] == wanted


def test_an_answer_that_is_no_document_is_an_error_that_isnt_asked_for_again(client: Any) -> None:
    form = {"type": "json_object"}
    reply = client("POST", CHAT, asking("no document", response_format=form))
    error = refused(reply, 500, "3 tries", type="server_error", code="output_mismatch")
    assert "JSON document" in error["output"]  # the echo of what it was told at last
    assert reply.headers["x-should-retry"] == "false"
    *pieces, last = events(client("POST", CHAT, asking("no document", response_format=form, stream=True)))
    assert (last["error"]["code"], last["error"]["output"]) == ("output_mismatch", "no document")
    assert pieces[-1]["choices"][0]["delta"] == {"content": " document"}


def test_a_document_that_was_cut_says_so_itself(client: Any) -> None:
    asked = asking('{"a": 1, "b": 2}', response_format={"type": "json_object"}, max_tokens=2)
    choice = answer_of(client("POST", CHAT, asked))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a": 1,', "length")
    *pieces, done = events(client("POST", CHAT, {**asked, "stream": True}))
    assert (pieces[-1]["choices"][0]["finish_reason"], done) == ("length", "[DONE]")


def test_thoughts_stand_apart(client: Any) -> None:
    message = answer_of(client("POST", CHAT, asking("think:hm yes", model="talker")))["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "yes ")
    *pieces, _ = events(client("POST", CHAT, asking("think:hm yes", model="talker", stream=True)))
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    assert deltas[1:3] == [{"reasoning_content": "hm"}, {"content": "yes "}]


# ---------------------------------------------------------------- texts
def test_texts_are_continued(client: Any) -> None:
    found = answer_of(client("POST", TEXT, {"model": "echo", "prompt": "a b", "logprobs": 1}))
    assert found.pop("id").startswith("cmpl-")
    assert found.pop("created")
    logprobs = {
        "tokens": ["a", " b"],
        "token_logprobs": [0.0, 0.0],
        "top_logprobs": [{"a": 0.0}, {" b": 0.0}],
        "text_offset": [0, 1],
    }
    assert found == {
        "object": "text_completion",
        "model": "echo",
        "choices": [{"index": 0, "text": "a b", "logprobs": logprobs, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    }


def test_several_texts_have_their_answers_in_order(client: Any) -> None:
    texts = [f"text {number}" for number in range(20)]
    found = answer_of(client("POST", TEXT, {"model": "echo", "prompt": texts, "n": 2}))
    assert [choice["index"] for choice in found["choices"]] == list(range(40))
    assert [choice["text"] for choice in found["choices"]] == [text for text in texts for _ in range(2)]
    assert found["usage"] == {"prompt_tokens": 40, "completion_tokens": 80, "total_tokens": 120}
    refused(
        client("POST", TEXT, {"model": "talker", "prompt": ["a", "long", "b"]}), 400, code="context_length_exceeded"
    )


def test_a_text_is_streamed(client: Any) -> None:
    asked = {"model": "echo", "prompt": "a b", "stream": True, "stream_options": {"include_usage": True}}
    *pieces, usage, done = events(client("POST", TEXT, asked))
    assert done == "[DONE]"
    assert {piece["object"] for piece in pieces} == {"text_completion"}
    choices = [piece["choices"][0] for piece in pieces]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("a", None),
        (" b", None),
        ("", "stop"),
    ]
    assert usage["usage"]["total_tokens"] == 4


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"prompt": None}, "prompt", "missing"),
        ({"prompt": []}, "prompt", "list of texts"),
        ({"prompt": [1, 2]}, "prompt", "tokens"),
        ({"prompt": [[1, 2]]}, "prompt", "tokens"),
        ({"prompt": ["a", 1]}, "prompt", "text"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt", "one prompt"),
        ({"echo": True}, "echo", "isn't offered"),
        ({"best_of": 3}, "best_of", "isn't offered"),
        ({"suffix": "x"}, "suffix", "isn't offered"),
        ({"logprobs": True}, "logprobs", "whole number"),
    ],
)
def test_texts_that_cant_be_are_refused(client: Any, members: Any, param: str, words: str) -> None:
    refused(client("POST", TEXT, {"model": "echo", "prompt": "x", **members}), 400, words, param=param)


# ---------------------------------------------------------------- vectors
def test_vectors_are_numbers_or_packed_ones(client: Any) -> None:
    with aiaas.load("echo:") as model:
        wanted = model.embed(["ab", "c"]).array
    asked = {"model": "echo", "input": ["ab", "c"]}
    found = answer_of(client("POST", EMBED, asked))
    assert (found["object"], found["model"]) == ("list", "echo")
    assert found["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert [(entry["object"], entry["index"]) for entry in found["data"]] == [("embedding", 0), ("embedding", 1)]
    assert np.array_equal(np.array([entry["embedding"] for entry in found["data"]], np.float32), wanted)
    packed = answer_of(client("POST", EMBED, {**asked, "encoding_format": "base64"}))["data"]
    for entry, row in zip(packed, wanted, strict=True):
        data = base64.b64decode(entry["embedding"])
        assert struct.unpack(f"<{len(row)}f", data) == tuple(row.tolist())
    short = answer_of(client("POST", EMBED, {"model": "echo", "input": "ab", "dimensions": 2}))["data"]
    assert np.allclose(short[0]["embedding"], [0.5**0.5] * 2)


def test_many_vectors_go_out(client: Any) -> None:
    texts = [f"{number:x}" for number in range(2048)]
    found = answer_of(client("POST", EMBED, {"model": "echo", "input": texts}))["data"]
    assert [entry["index"] for entry in found] == list(range(2048))


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"input": None}, "input", "missing"),
        ({"input": []}, "input", "list of texts"),
        ({"input": [[1, 2], [3]]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, "input", "tokens"),
        ({"input": {"text": "x"}}, "input", "text"),
        ({"encoding_format": "hex"}, "encoding_format", "base64"),
        ({"dimensions": 0}, "dimensions", "from 1 on"),
        ({"dimensions": True}, "dimensions", "from 1 on"),
    ],
)
def test_what_cant_be_embedded_is_refused(client: Any, members: Any, param: str, words: str) -> None:
    refused(client("POST", EMBED, {"model": "echo", "input": "x", **members}), 400, words, param=param)


def test_a_model_without_the_verb_says_so(client: Any, serving: Any) -> None:
    error = refused(client("POST", EMBED, {"model": "talker", "input": "x"}), 400, "embed isn't available")
    assert "talker:" not in error["message"]
    other = serving("far=http://127.0.0.1:9/v2/models/x", retry=None)
    refused(other("POST", CHAT, asking(model="far")), 502, "can't be reached")


# ---------------------------------------------------------------- errors of every layer
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/models/echo", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", EMBED, 405),
    ],
)
def test_what_isnt_there_is_told_in_the_same_form(client: Any, method: str, path: str, status: int) -> None:
    refused(client(method, path), status, type="invalid_request_error", param=None, code=None)


def test_too_large_too_packed_and_too_foreign_are_told_in_the_same_form(serving: Any) -> None:
    client = serving("echo:", max_body=1000)
    refused(client("POST", CHAT, b" " * 1001), 413, "1000 bytes")
    refused(client("POST", CHAT, b"x", {"content-encoding": "br"}), 415)
    refused(client("POST", CHAT, b"x", {"content-encoding": "gzip"}), 400)
    refused(client("GET", "/v1/models", headers={"Host": "evil.example"}), 403, type="permission_error")
    assert client("GET", "/v2/nothing").error
    came = client.send(b"GET /v1/models/" + b"x" * 60000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b'"error":{"message":' in came


def test_a_model_that_raises_is_500_and_the_connection_lives(client: Any) -> None:
    error = refused(
        client("POST", CHAT, asking("fail", model="talker")), 500, "raised RuntimeError", type="server_error"
    )
    assert "Traceback" not in error["message"]
    assert client("POST", CHAT, asking()).status == 200


def test_what_no_status_says_has_a_code(client: Any) -> None:
    refused(client("POST", CHAT, asking("long", model="talker")), 400, "context", code="context_length_exceeded")
    busy = client("POST", CHAT, asking("busy", model="talker"))
    refused(busy, 429, code="rate_limit_exceeded", type="rate_limit_error")
    assert busy.headers["retry-after"] == "3"


def test_a_request_has_an_id_its_callers_own_where_it_has_one(client: Any) -> None:
    assert client("GET", "/v1/models").headers["x-request-id"].startswith("req_")
    for told, same in (("my-id:7", True), ("bad id", False), ("x" * 200, False)):
        reply = client("POST", CHAT, asking(), {"x-request-id": told})
        assert (reply.headers["x-request-id"] == told) is same
        assert int(reply.headers["openai-processing-ms"]) >= 0
    assert "x-request-id" not in client("GET", "/v2").headers


# ---------------------------------------------------------------- streams that don't end well
def test_what_fails_before_the_first_content_has_its_own_status(client: Any) -> None:
    for words, status in (("fail", 500), ("long", 400), ("busy", 429)):
        refused(client("POST", CHAT, asking(words, model="talker", stream=True)), status)
    refused(client("POST", CHAT, asking(model="none", stream=True)), 404)


def test_what_fails_later_is_an_event_and_there_is_no_done(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    *pieces, last = events(client("POST", CHAT, asking("one two fail", model="talker", stream=True)))
    assert [piece["choices"][0]["delta"].get("content") for piece in pieces] == ["", "one ", "two "]
    assert {"message", "type", "param", "code"} <= set(last["error"])
    assert "raised RuntimeError" in last["error"]["message"]
    assert "lost the thread" not in last["error"]["message"]  # V07: what a model's code says is the operator's
    assert "lost the thread" in caplog.text
    assert client("POST", CHAT, asking()).status == 200


def test_the_callers_time_ends_a_stream(client: Any) -> None:
    begun = time.monotonic()
    reply = client("POST", CHAT, asking("forever", model="talker", stream=True), {"aiaas-timeout-ms": "400"})
    *pieces, last = events(reply)
    assert "error" in last
    assert len(pieces) > 2
    assert time.monotonic() - begun < 5
    spent = client("POST", CHAT, asking(), {"aiaas-timeout-ms": "0"})
    refused(spent, 504, "time has run out")
    slow = client("POST", CHAT, asking("wait:5 x", model="talker"), {"aiaas-timeout-ms": "200"})
    refused(slow, 504)


def _begin(client: Any, asked: Any) -> socket.socket:
    body = json.dumps(asked).encode()
    stream = socket.create_connection((client.host, client.port), timeout=20)
    stream.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return stream


def _until(check: Any, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not check():
        time.sleep(0.02)
    return bool(check())


def test_a_client_that_leaves_stops_the_work_and_frees_the_place(serving: Any, talker: str) -> None:
    client = serving(f"talker={talker}", queue=1)
    with _begin(client, asking("forever", model="talker", stream=True)) as stream:
        came = b""
        while came.count(b"data: ") < 8:
            came += stream.recv(65536)
        refused(client("POST", CHAT, asking(model="talker")), 503, "overloaded", type="service_unavailable")
        made = len(STEPS)
    time.sleep(0.15)
    stopped = len(STEPS)
    assert stopped - made < 8  # some were on their way while this looked
    time.sleep(0.3)
    assert len(STEPS) <= stopped + 2
    assert _until(lambda: client("POST", CHAT, asking(model="talker")).status == 200)


def test_a_client_that_leaves_before_the_first_content_stops_the_work(serving: Any, talker: str) -> None:
    client = serving(f"talker={talker}", queue=1)
    made = len(STEPS)
    with _begin(client, asking("wait:0.4 " + "x " * 50, model="talker", stream=True)):
        time.sleep(0.1)
    assert _until(lambda: client("POST", CHAT, asking("y", model="talker")).status == 200)
    assert "x " not in STEPS[made + 2 :]


@pytest.mark.slow
def test_a_client_that_takes_nothing_loses_its_place(
    serving: Any, talker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "STALLED", 0.5)
    client = serving(f"talker={talker}", queue=1)
    with _begin(client, asking("flood " * 40, model="talker", stream=True)):
        assert _until(lambda: client("POST", CHAT, asking(model="talker")).status == 503)
        assert _until(lambda: client("POST", CHAT, asking(model="talker")).status == 200)


# ---------------------------------------------------------------- before another endpoint
def test_a_gateway_speaks_as_the_server_behind_it(serving: Any, talker: str) -> None:
    behind = serving("echo=echo:", f"talker={talker}")
    client = serving(f"echo=openai+{behind.url}/v1#echo", f"talker=openai+{behind.url}/v1#talker")
    found = answer_of(client("POST", CHAT, asking(n=2, logprobs=True)))
    assert [choice["message"]["content"] for choice in found["choices"]] == ["hello big world"] * 2
    assert found["usage"]["total_tokens"] == 9
    *pieces, usage, _ = events(client("POST", CHAT, asking(stream=True, stream_options={"include_usage": True})))
    assert [piece["choices"][0]["delta"].get("content") for piece in pieces[1:4]] == ["hello", " big", " world"]
    assert usage["usage"]["total_tokens"] == 6
    calls = answer_of(client("POST", CHAT, asking('add({"a": 1})', tools=[ADD])))["choices"][0]["message"]["tool_calls"]
    assert calls[0]["function"]["name"] == "add"
    vectors = answer_of(client("POST", EMBED, {"model": "echo", "input": ["ab", "c"]}))
    assert vectors == answer_of(behind("POST", EMBED, {"model": "echo", "input": ["ab", "c"]}))
    *_, last = events(client("POST", CHAT, asking("one fail", model="talker", stream=True)))
    assert "raised RuntimeError" in last["error"]["message"]
    error = refused(client("POST", CHAT, asking("long", model="talker")), 400, code="context_length_exceeded")
    assert str(behind.port) not in error["message"]
    late = client("POST", CHAT, asking("wait:1 x", model="talker"), {"aiaas-timeout-ms": "200"})
    assert str(behind.port) not in refused(late, 504)["message"]


def test_a_gateway_keeps_the_places_of_a_route_to_itself(
    serving: Any, talker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    behind = serving(f"talker={talker}")
    members = [f"openai+{behind.url}/v1#talker", f"openai+http://localhost:{behind.port}/v1#talker"]
    Path("aiaas.toml").write_text(f"[models]\nfar = {json.dumps(members)}\n")
    client = serving("far", retry=None)
    late = client("POST", CHAT, asking("wait:1 x", model="far"), {"aiaas-timeout-ms": "200"})
    assert str(behind.port) not in refused(late, 504)["message"]


class Counting(BaseHTTPRequestHandler):
    """An endpoint that is always overloaded, and counts how often it is asked."""

    asked = 0

    def do_GET(self) -> None:
        self.answer(200, b'{"object":"list","data":[]}')

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(503, b"{}")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def overloaded() -> Iterator[tuple[str, type[Counting]]]:
    kind = type("Counted", (Counting,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"openai+http://127.0.0.1:{server.server_port}/v1#x", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_who_asks_again_by_himself_isnt_helped(serving: Any, overloaded: Any) -> None:
    address, kind = overloaded
    client = serving(f"far={address}", retry=aiaas.Retry(attempts=3, wait=0.01))
    refused(client("POST", CHAT, asking(model="far")), 503)
    assert kind.asked == 3
    for header in ("x-stainless-retry-count", "aiaas-attempt"):
        kind.asked = 0
        refused(client("POST", CHAT, asking(model="far", stream=True), {header: "0"}), 503)
        assert kind.asked == 1
