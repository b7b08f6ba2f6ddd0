"""What answers and the chunks of a stream are made of, however their servers spell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.errors import ProtocolError, UnsupportedOperationError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.chat import Chat, Choice
from aiaas_sdk.wire.status import excerpt

__all__ = ["REFUSED", "check_given", "content_of", "logprobs_of", "parsed", "reasoning_of", "refusal_of", "usage_of"]

REFUSED = "content_filter"
"""The finish reason of a refusal: what it says is no answer, and asking again for one wouldn't help."""


def parsed(body: Buffer, what: str) -> dict[str, Any]:
    try:
        document = from_json(bytes(body))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProtocolError(f"{what} is no JSON object: {excerpt(body)}")
    return document


def content_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    raise ProtocolError("the answer's content is no text")


def refusal_of(message: Mapping[str, Any]) -> str:
    """Why the model doesn't answer: OpenAI tells that in place of the content, and with the reason "stop"."""
    refusal = message.get("refusal")
    return refusal if isinstance(refusal, str) else ""


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    for name in ("reasoning_content", "reasoning"):
        if (text := message.get(name)) and isinstance(text, str):
            return text
    return None


def logprobs_of(found: Any) -> Any:
    """One entry a token, from the form of chats or from that of completions."""
    if not isinstance(found, Mapping):
        return None
    if isinstance(content := found.get("content"), list) and all(isinstance(token, Mapping) for token in content):
        return content
    tokens, values, tops = (found.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(values, list):
        return None
    tops = tops if isinstance(tops, list) else []
    return [
        {"token": token, "logprob": value, "top_logprobs": _others(tops[place] if place < len(tops) else None)}
        for place, (token, value) in enumerate(zip(tokens, values, strict=False))
    ]


def _others(top: Any) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": value} for token, value in top.items()] if isinstance(top, Mapping) else []


def usage_of(usage: Any) -> tuple[int | None, int | None]:
    """Tokens in and out. All zeros is how some servers say that they don't count."""
    if not isinstance(usage, Mapping):
        return None, None
    told = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [count if type(count) is int and count >= 0 else None for count in told]
    return (None, None) if not any(counts) else (counts[0], counts[1])


def check_given(choices: Sequence[Choice], chat: Chat) -> None:
    wanted = chat.sampling.get("n", 1)
    if len(choices) != wanted:
        raise UnsupportedOperationError(f"n={wanted} was asked for, and the peer gave {len(choices)}")
    if "logprobs" in chat.sampling and any(choice.logprobs is None for choice in choices):
        raise UnsupportedOperationError("logprobs were asked for, and the peer gave none")
