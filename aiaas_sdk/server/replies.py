"""Answers in the form of OpenAI's API: whole, and in pieces."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from aiaas_sdk.records.language import Delta, Embeddings, Generation, ToolCall
from aiaas_sdk.records.model import Usage

__all__ = ["DONE", "Pieces", "chat", "completion", "embeddings", "event"]

DONE = b"data: [DONE]\n\n"
UNLIKELY = -9999.0


def event(told: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + to_json(told) + b"\n\n"


# ---------------------------------------------------------------- whole answers
def chat(model: str, answer: Generation) -> bytes:
    choices = [
        {
            "index": index,
            "message": _message(one),
            "logprobs": _chat_logprobs(one),
            "finish_reason": one.finish_reason,
        }
        for index, one in enumerate((answer, *answer.others))
    ]
    return to_json({**_head("chatcmpl", "chat.completion", model), "choices": choices, **_usage([answer.usage])})


def completion(model: str, answers: Sequence[Generation]) -> bytes:
    """The answers to one prompt or several; those to one stand together."""
    every = [one for answer in answers for one in (answer, *answer.others)]
    choices = [
        {"index": index, "text": one.text, "logprobs": _text_logprobs(one), "finish_reason": one.finish_reason}
        for index, one in enumerate(every)
    ]
    usage = _usage([answer.usage for answer in answers])
    return to_json({**_head("cmpl", "text_completion", model), "choices": choices, **usage})


def embeddings(model: str, found: Embeddings, *, packed: bool) -> bytes:
    vectors = found.array.astype("<f4", copy=False)
    told = [base64.b64encode(vector.tobytes()).decode() for vector in vectors] if packed else vectors.tolist()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(told)]
    tokens = found.usage.input_tokens
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return to_json({"object": "list", "data": data, "model": model, **usage}, inf_nan_mode="null")


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _message(answer: Generation) -> dict[str, Any]:
    told: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning is not None:
        told["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        told["content"] = answer.text or None
        told["tool_calls"] = [_call(call) for call in answer.tool_calls]
    return told


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else to_json(call.arguments).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _usage(usages: Sequence[Usage]) -> dict[str, Any]:
    """The member `usage`, and none where a count is unknown: 0 would be a lie."""
    given = [usage.input_tokens for usage in usages]
    made = [usage.output_tokens for usage in usages]
    if None in given or None in made:
        return {}
    counts = sum(filter(None, given)), sum(filter(None, made))
    return {"usage": {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}}


def _chat_logprobs(answer: Generation) -> dict[str, Any] | None:
    if answer.logprobs is None:
        return None
    return {"content": [_token(entry) for entry in answer.logprobs], "refusal": None}


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    others = [_token_alone(other) for other in entry.get("top_logprobs") or ()]
    return {**_token_alone(entry), "top_logprobs": others}


def _token_alone(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": _log(entry["logprob"]), "bytes": entry.get("bytes")}


def _log(value: float) -> float:
    """JSON has no infinity; OpenAI says -9999 for what is that unlikely."""
    return max(value, UNLIKELY)


def _text_logprobs(answer: Generation) -> dict[str, Any] | None:
    """The older form, of /completions."""
    if answer.logprobs is None:
        return None
    tokens = [entry["token"] for entry in answer.logprobs]
    offsets = [0]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    tops = [
        {other["token"]: _log(other["logprob"]) for other in entry.get("top_logprobs") or ()}
        for entry in answer.logprobs
    ]
    values = [_log(entry["logprob"]) for entry in answer.logprobs]
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets[: len(tokens)],
    }


# ---------------------------------------------------------------- pieces
class Pieces:
    """The events of one streamed answer. All have one id; the role comes first, the finish reason in its own.

    Args:
        model: its name.
        chatting: of /chat/completions, else of /completions.
        usage: the tokens are told in a last event, and every other one says that it doesn't tell them.
    """

    def __init__(self, model: str, *, chatting: bool, usage: bool) -> None:
        kind = ("chatcmpl", "chat.completion.chunk") if chatting else ("cmpl", "text_completion")
        self._chatting, self._usage, self._calls = chatting, usage, 0
        self._before = b"data: " + to_json(_head(*kind, model))[:-1]
        self._after = b',"usage":null}\n\n' if usage else b"}\n\n"

    def first(self) -> bytes:
        return self._event({"role": "assistant", "content": "", "refusal": None}) if self._chatting else b""

    def delta(self, delta: Delta) -> bytes:
        """What a delta brings; nothing where that can't be told."""
        if not self._chatting:
            return self._event(delta.text) if delta.text else b""
        return b"".join(self._event(told) for told in self._told(delta))

    def _told(self, delta: Delta) -> Iterator[dict[str, Any]]:
        if delta.reasoning:
            yield {"reasoning_content": delta.reasoning}
        if delta.text:
            yield {"content": delta.text}
        for call in delta.tool_calls:
            yield {"tool_calls": [{"index": self._calls, **_call(call)}]}
            self._calls += 1

    def last(self, answer: Generation) -> bytes:
        """The finish reason, with the tokens' probabilities where they were asked for; the usage; the end."""
        logprobs = _chat_logprobs(answer) if self._chatting else _text_logprobs(answer)
        events = [self._event({} if self._chatting else "", logprobs, answer.finish_reason)]
        if self._usage and (told := _usage([answer.usage])):
            events.append(self._before + b',"choices":[],' + to_json(told)[1:] + b"\n\n")
        return b"".join((*events, DONE))

    def _event(self, told: Any, logprobs: Any = None, reason: str | None = None) -> bytes:
        piece = {"index": 0, "delta" if self._chatting else "text": told, "logprobs": logprobs, "finish_reason": reason}
        return b"".join((self._before, b',"choices":[', to_json(piece), b"]", self._after))
