"""A conversation as the tokens that a model was taught, by its tokenizer's own template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import TemplateError

from aiaas_sdk.errors import InputError, UnsupportedOperationError
from aiaas_sdk.records.chat import Chat
from aiaas_sdk.records.language import Attachment, Message

__all__ = ["tokens_of"]


def tokens_of(chat: Chat, tokenizer: Any) -> list[int]:
    """The prompt.

    Text alone is completed as it is by a model without a template, and where no messages are given.

    Raises:
        InputError: it is empty, or the template refuses it.
        UnsupportedOperationError: it offers tools, or holds something else than text.
    """
    if chat.tools:
        raise UnsupportedOperationError(
            "hf: models can't be offered tools", hint="Leave tools= out, or import the model: aiaas import"
        )
    if not chat.messages or not tokenizer.chat_template:
        text = chat.text if chat.text is not None else _plain(chat)
        found = tokenizer(text, add_special_tokens=True)["input_ids"]
    else:
        found = tokenizer(_rendered(chat, tokenizer), add_special_tokens=False)["input_ids"]
    if not found:
        raise InputError("the prompt is empty: it has no token to go on from")
    return list(found)


def _rendered(chat: Chat, tokenizer: Any) -> str:
    messages = [_message(message) for message in chat.messages]
    try:
        text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise InputError(f"the model's chat template says: {str(error)[:300]}") from None
    return text


def _message(message: Message) -> Mapping[str, Any]:
    """A message as templates know it; "developer" is the newer word for "system"."""
    role = "system" if message.role == "developer" else message.role
    found: dict[str, Any] = {"role": role, "content": _text(message)}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


def _plain(chat: Chat) -> str:
    """Without a template: one message of the user is its text; more are written as a play is."""
    if len(chat.messages) == 1 and chat.messages[0].role == "user":
        return _text(chat.messages[0])
    return "".join([*(f"{message.role}: {_text(message)}\n" for message in chat.messages), "assistant:"])


def _text(message: Message) -> str:
    parts = [message.content] if isinstance(message.content, str) else message.content
    for part in parts:
        if isinstance(part, Attachment) or (isinstance(part, Mapping) and part.get("type") != "text"):
            kind = part.media_type if isinstance(part, Attachment) else str(part.get("type"))[:40]
            raise UnsupportedOperationError(f"this model reads text alone, and a message holds {kind}")
    return message.text
