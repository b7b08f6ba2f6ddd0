"""Whole answers of chats and completions, and the list of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.chat import Chat, Choice, Spoken
from aiaas_sdk.records.language import ToolCall
from aiaas_sdk.wire.openai.failures import event_error
from aiaas_sdk.wire.openai.parts import (
    REFUSED,
    check_given,
    content_of,
    logprobs_of,
    parsed,
    reasoning_of,
    refusal_of,
    usage_of,
)
from aiaas_sdk.wire.openai.thinking import Thinking
from aiaas_sdk.wire.openai.toolcalls import ToolPieces

__all__ = ["decode_answer", "decode_models"]


def decode_answer(body: Buffer, chat: Chat) -> Spoken:
    """The answer to a chat or a completion.

    Raises:
        ProtocolError: it is none. UnsupportedOperationError: the peer left out what was asked for (`n`, `logprobs`).
    """
    document = parsed(body, "the answer")
    if isinstance(document.get("error"), dict | str):
        raise event_error(document)
    entries = document.get("choices")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ProtocolError("the answer has no choices")
    choices = tuple(_choice(entry) for entry in sorted(entries, key=_index))
    check_given(choices, chat)
    return Spoken(choices, *usage_of(document.get("usage")))


def _index(entry: Mapping[str, Any]) -> int:
    index = entry.get("index")
    return index if type(index) is int else 0


def _choice(entry: Mapping[str, Any]) -> Choice:
    message = entry.get("message")
    if not isinstance(message, Mapping):
        message = {"content": entry.get("text")}
    text, reasoning = content_of(message.get("content")), reasoning_of(message)
    if reasoning is None:
        reasoning, text = _thought(text)
    calls, refusal = _whole_calls(message.get("tool_calls")), refusal_of(message)
    reason = REFUSED if refusal else _reason(entry, calls)
    return Choice(text or refusal, reason, reasoning, calls, logprobs_of(entry.get("logprobs")))


def _whole_calls(found: Any) -> tuple[ToolCall, ...]:
    """Calls that aren't in pieces: each is one, whatever its index and id."""
    pieces = ToolPieces()
    calls = [call for call in found if isinstance(call, Mapping)] if isinstance(found, list) else []
    pieces.add([{**call, "index": place} for place, call in enumerate(calls)])
    return pieces.calls()


def _thought(text: str) -> tuple[str | None, str]:
    """What a model thinks stands between tags before its answer."""
    thinking = Thinking()
    (answer, thought), (rest, last) = thinking.feed(text), thinking.end()
    return thought + last or None, answer + rest


def _reason(entry: Mapping[str, Any], calls: tuple[ToolCall, ...]) -> str:
    reason = entry.get("finish_reason")
    return reason if isinstance(reason, str) and reason else "tool_calls" if calls else "stop"


def decode_models(body: Buffer) -> list[tuple[str, str]]:
    """The names of the models that a server lists, and whom each says it is owned by."""
    entries = parsed(body, "the list of models").get("data")
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [(entry["id"], str(entry.get("owned_by", ""))) for entry in found if isinstance(entry.get("id"), str)]
