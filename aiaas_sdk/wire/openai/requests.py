"""What is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import InputError, UnsupportedOperationError
from aiaas_sdk.records.chat import Chat, ToolSpec
from aiaas_sdk.records.language import Attachment, Message, ToolCall

__all__ = [
    "AUDIO",
    "MOST_TEXTS",
    "PLAIN",
    "Dialect",
    "encode_chat",
    "encode_completion",
    "encode_embeddings",
    "encoded",
]

MOST_TEXTS = 2_048
"""Texts that one request to /embeddings may have: OpenAI's limit."""
AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a peer wants to be asked where that isn't as OpenAI's description has it.

    Attributes:
        limit: its name of max_tokens.
        form: the type of `response_format` that takes a schema: "json_schema", or "json_object" with it inside.
        choice: `tool_choice`, where it doesn't look at tools without one; "auto" is OpenAI's own default.
        silence: the content of a message that has only calls of tools.
    """

    limit: str = "max_tokens"
    form: str = "json_schema"
    choice: str | None = None
    silence: str | None = None


PLAIN = Dialect()


def encode_chat(model: str, chat: Chat, *, dialect: Dialect = PLAIN, stream: bool = False) -> dict[str, Any]:
    """The body of POST /chat/completions."""
    messages = [_message(message, dialect.silence) for message in chat.messages]
    body: dict[str, Any] = {"model": model, "messages": messages} | _sampling(chat.sampling, dialect.limit)
    if "logprobs" in chat.sampling:
        body |= {"logprobs": True, "top_logprobs": chat.sampling["logprobs"]}
    if chat.tools:
        body["tools"] = [_tool(tool) for tool in chat.tools]
        body |= {} if dialect.choice is None else {"tool_choice": dialect.choice}
    if chat.schema is not None:
        name, schema = chat.schema
        inside = (
            {"schema": schema} if dialect.form == "json_object" else {dialect.form: {"name": name, "schema": schema}}
        )
        body["response_format"] = {"type": dialect.form, **inside}
    return _streamed(body, stream)


def encode_completion(model: str, chat: Chat, *, stream: bool = False) -> dict[str, Any]:
    """The body of POST /completions, which continues a text.

    Raises:
        UnsupportedOperationError: it can't take messages, tools or a schema.
    """
    if chat.text is None or chat.tools or chat.schema is not None:
        raise UnsupportedOperationError(
            "/completions takes a text only", hint="Load the address without /completions for messages and tools"
        )
    body: dict[str, Any] = {"model": model, "prompt": chat.text} | _sampling(chat.sampling, "max_tokens")
    if "logprobs" in chat.sampling:
        body["logprobs"] = chat.sampling["logprobs"]
    return _streamed(body, stream)


def encode_embeddings(model: str, texts: Sequence[str], dimensions: int | None) -> dict[str, Any]:
    """The body of POST /embeddings; vectors come back as base64, or as lists from who doesn't know that."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def encoded(body: Mapping[str, Any]) -> bytes:
    """A request's body as JSON.

    Raises:
        InputError: something in it (a part, a schema, a tool's description) is no JSON, or has half a character.
    """
    try:
        return to_json(body)
    except ValueError as error:
        told = str(error).removeprefix("Error serializing to JSON: ")
        raise InputError(f"the request can't be written as JSON: {told[:200]}", hint="Give plain values") from None


def _sampling(sampling: Mapping[str, Any], limit: str) -> dict[str, Any]:
    names = {"max_tokens": limit}
    found = {names.get(name, name): value for name, value in sampling.items() if name != "logprobs"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _streamed(body: dict[str, Any], stream: bool) -> dict[str, Any]:
    return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {**function, "strict": True} if tool.strict else function}


def _message(message: Message, silence: str | None) -> dict[str, Any]:
    content = message.content
    told: dict[str, Any] = {"role": message.role}
    told["content"] = content if isinstance(content, str) else [_part(part) for part in content]
    if message.tool_calls:
        told["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.tool_calls
        ]
        told["content"] = told["content"] or silence
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    if message.name is not None and message.role != "tool":
        told["name"] = message.name
    return told


def _arguments(call: ToolCall) -> str:
    if isinstance(call.arguments, str):
        return call.arguments
    try:
        return json.dumps(call.arguments, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(
            f"a call of the tool {call.name!r} has arguments that JSON can't hold", hint="Give plain values"
        ) from None


def _part(part: str | Attachment | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping):
        return part
    if part.kind == "image":
        return {"type": "image_url", "image_url": {"url": part.url or part.data_url}}
    if part.url:
        raise InputError(
            f"{with_article(part.media_type)} can't be given by url here", hint="Give its data: aiaas.fetch(url)"
        )
    if part.kind == "audio":
        if part.media_type not in AUDIO:
            raise InputError(f"{part.media_type} isn't a sound that this API takes", hint=f"One of {', '.join(AUDIO)}")
        encoded = base64.b64encode(part.data).decode()
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": AUDIO[part.media_type]}}
    return {"type": "file", "file": {"filename": part.name or "file", "file_data": part.data_url}}
