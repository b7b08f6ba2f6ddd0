"""Triton's generate extension over real connections."""

from __future__ import annotations

import json
from typing import Any

import pytest

GENERATE, STREAM = "/v2/models/one/generate", "/v2/models/one/generate_stream"


def events(answer: Any) -> list[dict[str, Any]]:
    """The events of a stream, each with one line of data and nothing else."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, end = answer.body.split(b"\n\n")
    assert end == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"text_input": "hello big world"}, "hello big world"),
        ({"text_input": "hello big world", "parameters": {"max_tokens": 2, "stream": False}}, "hello big"),
        ({"text_input": "hello big world", "max_tokens": 1}, "hello"),
        ({"text_input": "hello big world", "parameters": {"stop": [" big"], "custom": 1}}, "hello"),
        ({"text_input": "hello", "parameters": None, "max_tokens": None}, "hello"),
    ],
)
@pytest.mark.parametrize("path", [GENERATE, "/v2/models/one/versions/1/generate"])
def test_a_text_is_continued(echo: Any, path: str, body: Any, text: str) -> None:
    answer = echo("POST", path, body)
    assert answer.status == 200
    assert answer.document == {"model_name": "one", "model_version": "1", "text_output": text}


def test_the_id_comes_back(echo: Any) -> None:
    assert echo("POST", GENERATE, {"text_input": "a", "id": "7"}).document["id"] == "7"
    assert [event["id"] for event in events(echo("POST", STREAM, {"text_input": "a b", "id": "7"}))] == ["7", "7"]


@pytest.mark.parametrize("id", ["x" * 257, 1.5, float("nan"), True, {}, ["a"]])
@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_an_id_is_short_and_can_be_written(echo: Any, path: str, id: Any) -> None:
    """It stands in each piece of a stream: of a megabyte, it made 200 MB of a text of 200 words."""
    answer = echo("POST", path, {"id": id, "text_input": "hello"})
    assert answer.status == 400
    assert "id is no text" in answer.error


def test_a_stream_has_a_piece_in_each_event_and_no_event_at_the_end(echo: Any) -> None:
    told = events(echo("POST", STREAM, {"text_input": "hello big world", "parameters": {"stream": True}}))
    assert told == [
        {"model_name": "one", "model_version": "1", "text_output": text} for text in ("hello", " big", " world")
    ]


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "text_input"),
        ({"text_input": 1}, "text_input"),
        ({"text_input": "a", "parameters": [1]}, "parameters"),
        ({"text_input": "a", "parameters": {"max_tokens": 0}}, "max_tokens"),
        ({"text_input": "a", "parameters": {"temperature": "hot"}}, "temperature"),
        ({"text_input": "a", "parameters": {"repetition_penalty": 2}}, "repetition_penalty"),
        ({"text_input": "a", "n": 2}, "n isn't offered"),
        (b"{", "JSON"),
    ],
)
def test_a_clients_mistake_is_400(echo: Any, path: str, body: Any, says: str) -> None:
    answer = echo("POST", path, body)
    assert answer.status == 400
    assert says in answer.error


def test_unknown_models_and_models_that_dont_speak(echo: Any, serving: Any) -> None:
    assert echo("POST", "/v2/models/none/generate", {"text_input": "a"}).status == 404
    assert echo("POST", "/v2/models/one/versions/9/generate_stream", {"text_input": "a"}).status == 404
    client = serving(f"tensors={echo.url}/v2/models/one")  # an endpoint of tensors has no text
    for end in ("generate", "generate_stream"):
        answer = client("POST", f"/v2/models/tensors/{end}", {"text_input": "a"})
        assert answer.status == 400
        assert "isn't available" in answer.error


def test_what_fails_before_the_first_piece_has_a_status_and_later_an_event(serving: Any, talker: str) -> None:
    client = serving(f"talker={talker}")
    path = "/v2/models/talker/generate_stream"
    assert client("POST", path, {"text_input": "fail"}).status == 500
    busy = client("POST", path, {"text_input": "busy"})
    assert (busy.status, busy.headers["retry-after"]) == (429, "3")
    answer = client("POST", path, {"text_input": "one fail"})
    assert answer.status == 200
    first, failed = events(answer)
    assert first["text_output"] == "one "
    assert list(failed) == ["error"]
    assert isinstance(failed["error"], str)
    assert client("POST", "/v2/models/talker/generate", {"text_input": "one fail"}).status == 500
