"""What each verb is asked, as recordings have it.

predict           tensors, and the option `outputs`
generate, stream  the prompt: a text, or messages; tools and a schema where there are some; sampling as options
embed             texts, and the option `dimensions`
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.recordings import speech, values
from aiaas_sdk.recordings.calls import BASE64, Asked
from aiaas_sdk.recordings.tensors import copied
from aiaas_sdk.records.chat import Chat, ToolSpec
from aiaas_sdk.records.language import Attachment, Message, Part
from aiaas_sdk.tensors import Tensor

__all__ = ["WORDS", "asked", "check"]

SMALL = 1024
"""Bytes of an attachment that are written as they are; of a larger one only size and digest."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "generate": ("prompt", "tools", "schema"),
    "stream": ("prompt", "tools", "schema"),
    "embed": ("texts",),
}
"""The keys of `Asked.words` of each verb; the first one is always there."""


def asked(address: str, verb: str, *arguments: Any) -> Asked:
    """The call of a verb with the arguments that a backend is handed; nothing of them is shared.

    Raises:
        InputError: a message holds something that JSON can't.
    """
    return _QUESTIONS[verb](address, verb, *arguments)


def _predict(address: str, verb: str, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Asked:
    options = {"outputs": list(outputs)} if outputs else {}
    return Asked(address, verb, {name: copied(tensor) for name, tensor in inputs.items()}, options=options)


def _chat(address: str, verb: str, chat: Chat) -> Asked:
    words: dict[str, Any] = {"prompt": chat.text if chat.text is not None else _messages(chat.messages)}
    if chat.tools:
        words["tools"] = [_tool(tool) for tool in chat.tools]
    if chat.schema is not None:
        name, schema = chat.schema
        words["schema"] = {"name": name, "schema": values.encode(schema, "the schema")}
    return Asked(address, verb, words=words, options=values.encode(chat.sampling, "sampling"))


def _embed(address: str, verb: str, texts: Sequence[str], dimensions: int | None) -> Asked:
    options = {} if dimensions is None else {"dimensions": dimensions}
    return Asked(address, verb, words={"texts": list(texts)}, options=options)


_QUESTIONS: Mapping[str, Callable[..., Asked]] = {
    "predict": _predict,
    "generate": _chat,
    "stream": _chat,
    "embed": _embed,
}


# ---------------------------------------------------------------- parts
def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_message(message, f"message {place}") for place, message in enumerate(messages)]


def _message(message: Message, where: str) -> dict[str, Any]:
    content = message.content
    found = {
        "role": message.role,
        "content": content if isinstance(content, str) else [_part(part, where) for part in content],
    }
    if message.tool_calls:
        found["tool_calls"] = speech.encode_calls(message.tool_calls, where)
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return found | {key: value for key, value in named.items() if value is not None}


def _part(part: Part, where: str) -> Any:
    return _attachment(part) if isinstance(part, Attachment) else values.encode(part, where)


def _attachment(part: Attachment) -> dict[str, Any]:
    """An attachment by what tells it from others. A part of the peer's own protocol has a "type" instead."""
    found: dict[str, Any] = {"attachment": part.media_type}
    if part.name is not None:
        found["name"] = part.name
    if part.url is not None:
        return found | {"url": part.url}
    found |= {"size": len(part.data), "sha256": hashlib.sha256(part.data).hexdigest()}
    return found | ({BASE64: base64.b64encode(part.data).decode()} if len(part.data) <= SMALL else {})


def _tool(tool: ToolSpec) -> dict[str, Any]:
    parameters = values.encode(tool.parameters, f"the tool {tool.name}")
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


# ---------------------------------------------------------------- reading
def check(verb: str, words: Mapping[str, Any], where: str) -> None:
    """ProtocolError, which begins with `where`, for words that no call of this verb has."""
    known = WORDS.get(verb, ())
    if unknown := [name for name in words if name not in known]:
        raise ProtocolError(f"{where}: a call of {verb} has no {unknown[0]}")
    if known and known[0] not in words:
        raise ProtocolError(f"{where}: a call of {verb} needs {known[0]}")
    for name, value in words.items():
        if not _CHECKS[name](value):
            raise ProtocolError(f"{where}: {name} is none")


def _are(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(element, kind) for element in value)


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list)
        and all(isinstance(message, dict) and message.keys() >= {"role", "content"} for message in value)
    )


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"name", "schema"}


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "prompt": _is_prompt,
    "tools": _are(dict),
    "schema": _is_schema,
    "texts": _are(str),
}
