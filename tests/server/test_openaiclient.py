"""The real openai clients and huggingface_hub against this server: chats, streams, tools, vectors, errors, retries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread
from tests.talker import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.peer]

OPENAI = """
import asyncio, json, sys, time
import openai
from openai import pydantic_function_tool
from pydantic import BaseModel

told = {"version": openai.__version__}
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", timeout=30)
chat = client.chat.completions


class Recipe(BaseModel):
    name: str
    minutes: int


class add(BaseModel):
    a: int
    b: int


def said(text):
    return [{"role": "user", "content": text}]


def error(call):
    try:
        call()
    except openai.OpenAIError as raised:
        names = ("status_code", "code", "param", "type", "request_id", "message")
        return {"class": type(raised).__name__, **{name: getattr(raised, name, None) for name in names}}
    return None


def text_of(answer):
    return answer.choices[0].message.content


told["models"] = [model.id for model in client.models.list()]
told["model"] = client.models.retrieve("org/name").id

answer = chat.create(model="echo", messages=said("hello big world"), n=2, logprobs=True, top_logprobs=1, seed=1)
told["chat"] = [choice.message.content for choice in answer.choices]
told["usage"] = answer.usage.total_tokens
told["logprobs"] = [entry.token for entry in answer.choices[0].logprobs.content]
told["request_id"] = answer._request_id

pieces = list(chat.create(model="echo", messages=said("hello big world"), stream=True,
                          stream_options={"include_usage": True}))
told["pieces"] = [piece.choices[0].delta.content for piece in pieces if piece.choices]
told["piece usage"] = [piece.usage and piece.usage.total_tokens for piece in pieces]
with chat.stream(model="echo", messages=said("hello big world"), logprobs=True) as stream:
    kinds = [event.type for event in stream]
    final = stream.get_final_completion()
told["stream"] = [kinds.count("content.delta"), final.choices[0].message.content, final.choices[0].finish_reason]
told["stream logprobs"] = [entry.token for entry in final.choices[0].logprobs.content]

messages = said('add({"a": 1, "b": 2})')
asked = chat.create(model="echo", messages=messages, tools=[pydantic_function_tool(add)])
[call] = asked.choices[0].message.tool_calls
told["tool"] = [call.function.name, json.loads(call.function.arguments), asked.choices[0].finish_reason]
messages += [asked.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
told["tool answer"] = text_of(chat.create(model="echo", messages=messages, tools=[pydantic_function_tool(add)]))
with chat.stream(model="echo", messages=messages[:1], tools=[pydantic_function_tool(add)]) as stream:
    [call] = stream.get_final_completion().choices[0].message.tool_calls
told["tool streamed"] = [call.function.name, call.function.parsed_arguments.b]

document = '{"name": "soup", "minutes": 20}'
parsed = chat.parse(model="echo", messages=said("Sure! " + document), response_format=Recipe)
told["parsed"] = parsed.choices[0].message.parsed.model_dump()
with chat.stream(model="echo", messages=said(document), response_format=Recipe) as stream:
    told["parsed streamed"] = stream.get_final_completion().choices[0].message.parsed.model_dump()
told["cut"] = error(lambda: chat.parse(model="echo", messages=said(document), response_format=Recipe, max_tokens=1))
unfit = said("unfit-" + told["version"])
told["unfit"] = error(lambda: chat.parse(model="talker", messages=unfit, response_format=Recipe))

texts = client.completions.create(model="echo", prompt=["a b", "c"], max_tokens=1)
told["texts"] = [[choice.index, choice.text, choice.finish_reason] for choice in texts.choices]
pieces = client.completions.create(model="echo", prompt="a b", stream=True)
told["text pieces"] = [piece.choices[0].text for piece in pieces]

for name, options in (("packed", {}), ("float", {"encoding_format": "float"}), ("short", {"dimensions": 2})):
    found = client.embeddings.create(model="echo", input=["ab", "c"], **options)
    told[name] = [entry.embedding[:3] for entry in found.data]

once = client.with_options(max_retries=0)
told["errors"] = {
    "temperature": error(lambda: chat.create(model="echo", messages=said("x"), temperature=9)),
    "model": error(lambda: chat.create(model="none", messages=said("x"))),
    "path": error(lambda: client.post("/nothing", cast_to=object)),
    "method": error(lambda: client.get("/embeddings", cast_to=object)),
    "long": error(lambda: chat.create(model="talker", messages=said("long"))),
    "busy": error(lambda: once.chat.completions.create(model="talker", messages=said("busy"))),
    "fail": error(lambda: once.chat.completions.create(model="talker", messages=said("fail"))),
    "timeout": error(lambda: once.with_options(timeout=0.3).chat.completions.create(
        model="talker", messages=said("wait:2 x"))),
    "verb": error(lambda: client.embeddings.create(model="talker", input="x")),
}
before = []
cut = said("one two fail")
told["mid-stream"] = error(lambda: before.extend(chat.create(model="talker", messages=cut, stream=True)))
told["before"] = [piece.choices[0].delta.content for piece in before]
begun = time.monotonic()
told["retried"] = text_of(chat.create(model="talker", messages=said("once:" + told["version"] + " then")))
told["retried after"] = time.monotonic() - begun


async def awaited():
    async with openai.AsyncOpenAI(base_url=sys.argv[1] + "/v1", api_key="none", timeout=30) as client:
        many = await asyncio.gather(*(
            client.chat.completions.create(model="echo", messages=said(f"number {n}")) for n in range(20)
        ))
        told["many"] = [text_of(answer) for answer in many]
        stream = await client.chat.completions.create(model="talker", messages=said("forever"), stream=True)
        taken = 0
        async for piece in stream:
            taken += 1
            if taken == 5:
                break
        await stream.close()
        # the one thread of this model is free again
        again = await client.chat.completions.create(model="talker", messages=said("again"))
        told["again"] = text_of(again)


asyncio.run(awaited())
client.close()
print(json.dumps(told))
"""

HUB = """
import asyncio, json, sys
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

told = {}
client = InferenceClient(base_url=sys.argv[1] + "/v1", api_key="none")


def said(text):
    return [{"role": "user", "content": text}]


answer = client.chat_completion(said("hello big world"), model="echo", max_tokens=2, temperature=0.5, seed=3)
told["chat"] = [answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.total_tokens]
pieces = list(client.chat.completions.create(model="echo", messages=said("a b"), stream=True))
told["pieces"] = [piece.choices[0].delta.content for piece in pieces]
told["reason"] = pieces[-1].choices[0].finish_reason
tool = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}
call = client.chat_completion(said('add({"a": 1})'), model="echo", tools=[tool]).choices[0].message.tool_calls[0]
told["tool"] = [call.function.name, call.function.arguments]
form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
answer = client.chat_completion(said('so: {"a": 1}'), model="echo", response_format=form)
told["document"] = answer.choices[0].message.content
try:
    client.chat_completion(said("x"), model="none")
except HfHubHTTPError as error:
    told["error"] = [error.response.status_code, "there is no model" in str(error)]


async def awaited():
    async with AsyncInferenceClient(base_url=sys.argv[1] + "/v1", api_key="none") as client:
        stream = await client.chat_completion(said("a b"), model="echo", stream=True)
        told["awaited"] = [piece.choices[0].delta.content async for piece in stream]


asyncio.run(awaited())
print(json.dumps(told))
"""


def run(python: Path, program: str, folder: Path, *targets: str, **options: Any) -> dict[str, Any]:
    """What a program saw of a server with these models."""
    path = folder / "program.py"
    path.write_text(program)
    with serve_in_thread(targets, **options) as url:
        done = subprocess.run([str(python), str(path), url], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["openai2", "openai3"])
def told(
    request: pytest.FixtureRequest,
    peer_python: Callable[[str], Path],
    talker: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What a client of that major version saw."""
    folder = tmp_path_factory.mktemp(request.param)
    python = peer_python(request.param)
    found = run(python, OPENAI, folder, "echo=echo:", "org/name=echo:", f"talker={talker}")
    assert found["version"].startswith(f"{request.param[-1]}.")
    return found


def test_models(told: dict[str, Any]) -> None:
    assert told["models"] == ["echo", "org/name", "talker"]
    assert told["model"] == "org/name"


def test_a_chat(told: dict[str, Any]) -> None:
    assert told["chat"] == ["hello big world"] * 2
    assert told["usage"] == 9
    assert told["logprobs"] == ["hello", " big", " world"]
    assert told["request_id"].startswith("req_")


def test_a_stream(told: dict[str, Any]) -> None:
    assert told["pieces"] == ["", "hello", " big", " world", None]
    assert told["piece usage"] == [None] * 5 + [6]
    assert told["stream"] == [4, "hello big world", "stop"]
    assert told["stream logprobs"] == ["hello", " big", " world"]


def test_tools(told: dict[str, Any]) -> None:
    assert told["tool"] == ["add", {"a": 1, "b": 2}, "tool_calls"]
    assert told["tool answer"] == "3"
    assert told["tool streamed"] == ["add", 2]


def test_documents(told: dict[str, Any]) -> None:
    assert told["parsed"] == told["parsed streamed"] == {"name": "soup", "minutes": 20}
    assert told["cut"]["class"] == "LengthFinishReasonError"
    assert (told["unfit"]["class"], told["unfit"]["code"]) == ("InternalServerError", "output_mismatch")
    assert STEPS.count(f"unfit-{told['version']} ") == 1  # and the client was told not to ask again


def test_texts(told: dict[str, Any]) -> None:
    assert told["texts"] == [[0, "a", "length"], [1, "c", "stop"]]
    assert told["text pieces"] == ["a", " b", ""]


def test_vectors(told: dict[str, Any]) -> None:
    half = pytest.approx(0.5**0.5)
    assert told["packed"] == told["float"] == [[half, half, 0], [0, 0, 1]]
    assert told["short"] == [[half, half], [0, 0]]


@pytest.mark.parametrize(
    ("name", "kind", "status", "code", "param"),
    [
        ("temperature", "BadRequestError", 400, None, "temperature"),
        ("model", "NotFoundError", 404, "model_not_found", None),
        ("path", "NotFoundError", 404, None, None),
        ("method", "APIStatusError", 405, None, None),
        ("long", "BadRequestError", 400, "context_length_exceeded", None),
        ("busy", "RateLimitError", 429, "rate_limit_exceeded", None),
        ("fail", "InternalServerError", 500, None, None),
        ("timeout", "APITimeoutError", None, None, None),
        ("verb", "BadRequestError", 400, None, None),
    ],
)
def test_errors_have_their_classes(
    told: dict[str, Any], name: str, kind: str, status: int | None, code: str | None, param: str | None
) -> None:
    error = told["errors"][name]
    assert (error["class"], error["status_code"], error["code"], error["param"]) == (kind, status, code, param)
    assert status is None or error["request_id"]


def test_an_error_within_a_stream(told: dict[str, Any]) -> None:
    assert told["before"] == ["", "one ", "two "]
    assert told["mid-stream"]["class"] == "APIError"
    assert "raised RuntimeError" in told["mid-stream"]["message"]


def test_it_asks_again_when_it_was_told_to(told: dict[str, Any]) -> None:
    assert told["retried"] == "then "
    assert 0.9 < told["retried after"] < 8


def test_many_at_once_and_one_that_leaves(told: dict[str, Any]) -> None:
    assert told["many"] == [f"number {n}" for n in range(20)]
    assert told["again"] == "again "


def test_the_hubs_client(peer_python: Callable[[str], Path], tmp_path: Path) -> None:
    told = run(peer_python("hub"), HUB, tmp_path, "echo=echo:")
    assert told["chat"] == ["hello big", "length", 5]
    assert told["pieces"] == told["awaited"] == ["", "a", " b", None]
    assert told["reason"] == "stop"
    assert told["tool"][0] == "add"
    assert json.loads(told["tool"][1]) == {"a": 1}
    assert told["document"] == '{"a": 1}'
    assert told["error"] == [404, True]
