"""OpenAI's API as it is spoken: requests, answers, streamed chunks.

Source: OpenAI's openapi description, and what its many imitations were seen to do: other ids in each chunk, usage
where it wasn't asked for or all zeros, no `[DONE]`, reasoning under three names, tool calls with any index.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json, to_json

from aiaas_sdk.errors import (
    AiaasError,
    ContextLengthError,
    InputError,
    OutputError,
    ProtocolError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.chat import Chat, Choice, Embedded, Spoken, ToolSpec
from aiaas_sdk.records.language import Attachment, Delta, Message, ToolCall
from aiaas_sdk.wire.status import excerpt, status_error

__all__ = [
    "PLAIN",
    "Assembler",
    "Dialect",
    "coded_error",
    "decode_answer",
    "decode_embeddings",
    "decode_models",
    "encode_chat",
    "encode_completion",
    "encode_embeddings",
    "encoded",
    "event_error",
    "means_model",
]

AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
THINK, UNTHINK = "<think>", "</think>"
REFUSED = "content_filter"
"""The finish reason of a refusal: what it says is no answer, and asking again for one wouldn't help."""


# ---------------------------------------------------------------- requests
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
        raise InputError(f"a {part.media_type} can't be given by url here", hint="Give its data: aiaas.fetch(url)")
    if part.kind == "audio":
        if part.media_type not in AUDIO:
            raise InputError(f"{part.media_type} isn't a sound that this API takes", hint=f"One of {', '.join(AUDIO)}")
        encoded = base64.b64encode(part.data).decode()
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": AUDIO[part.media_type]}}
    return {"type": "file", "file": {"filename": part.name or "file", "file_data": part.data_url}}


# ---------------------------------------------------------------- answers
def _parsed(body: Buffer, what: str) -> dict[str, Any]:
    try:
        document = from_json(bytes(body))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProtocolError(f"{what} is no JSON object: {excerpt(body)}")
    return document


def decode_answer(body: Buffer, chat: Chat) -> Spoken:
    """The answer to a chat or a completion.

    Raises:
        ProtocolError: it is none. UnsupportedOperationError: the peer left out what was asked for (`n`, `logprobs`).
    """
    document = _parsed(body, "the answer")
    if isinstance(document.get("error"), dict | str):
        raise event_error(document)
    entries = document.get("choices")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ProtocolError("the answer has no choices")
    choices = tuple(_choice(entry) for entry in sorted(entries, key=_index))
    _check_given(choices, chat)
    return Spoken(choices, *_usage(document.get("usage")))


def _index(entry: Mapping[str, Any]) -> int:
    index = entry.get("index")
    return index if type(index) is int else 0


def _choice(entry: Mapping[str, Any]) -> Choice:
    message = entry.get("message")
    if not isinstance(message, Mapping):
        message = {"content": entry.get("text")}
    text, reasoning = _content(message.get("content")), _reasoning(message)
    if reasoning is None:
        reasoning, text = _thought(text)
    calls, refusal = _whole_calls(message.get("tool_calls")), _refusal(message)
    reason = REFUSED if refusal else _reason(entry, calls)
    return Choice(text or refusal, reason, reasoning, calls, _logprobs(entry.get("logprobs")))


def _whole_calls(found: Any) -> tuple[ToolCall, ...]:
    """Calls that aren't in pieces: each is one, whatever its index and id."""
    pieces = ToolPieces()
    calls = [call for call in found if isinstance(call, Mapping)] if isinstance(found, list) else []
    pieces.add([{**call, "index": place} for place, call in enumerate(calls)])
    return pieces.calls()


def _refusal(message: Mapping[str, Any]) -> str:
    """Why the model doesn't answer: OpenAI tells that in place of the content, and with the reason "stop"."""
    refusal = message.get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    raise ProtocolError("the answer's content is no text")


def _reasoning(message: Mapping[str, Any]) -> str | None:
    for name in ("reasoning_content", "reasoning"):
        if (text := message.get(name)) and isinstance(text, str):
            return text
    return None


def _thought(text: str) -> tuple[str | None, str]:
    """What a model thinks stands between tags before its answer."""
    thinking = Thinking()
    (answer, thought), (rest, last) = thinking.feed(text), thinking.end()
    return thought + last or None, answer + rest


def _reason(entry: Mapping[str, Any], calls: tuple[ToolCall, ...]) -> str:
    reason = entry.get("finish_reason")
    return reason if isinstance(reason, str) and reason else "tool_calls" if calls else "stop"


def _logprobs(found: Any) -> Any:
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


def _check_given(choices: Sequence[Choice], chat: Chat) -> None:
    wanted = chat.sampling.get("n", 1)
    if len(choices) != wanted:
        raise UnsupportedOperationError(f"n={wanted} was asked for, and the peer gave {len(choices)}")
    if "logprobs" in chat.sampling and any(choice.logprobs is None for choice in choices):
        raise UnsupportedOperationError("logprobs were asked for, and the peer gave none")


def _usage(usage: Any) -> tuple[int | None, int | None]:
    """Tokens in and out. All zeros is how some servers say that they don't count."""
    if not isinstance(usage, Mapping):
        return None, None
    told = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [count if type(count) is int and count >= 0 else None for count in told]
    return (None, None) if not any(counts) else (counts[0], counts[1])


def decode_models(body: Buffer) -> list[tuple[str, str]]:
    """The names of the models that a server lists, and whom each says it is owned by."""
    entries = _parsed(body, "the list of models").get("data")
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [(entry["id"], str(entry.get("owned_by", ""))) for entry in found if isinstance(entry.get("id"), str)]


def decode_embeddings(body: Buffer, count: int) -> Embedded:
    """The vectors, put in the order of their texts by their index.

    Raises:
        ProtocolError: an index is missing, doubled or too large, or the vectors aren't numbers of one length.
    """
    document = _parsed(body, "the answer")
    entries = document.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProtocolError("the answer has no data")
    places = [entry.get("index", place) for place, entry in enumerate(entries)]
    if any(type(place) is not int for place in places) or sorted(places) != list(range(count)):
        raise ProtocolError(f"the answer has the indices {str(places)[:100]}; {count} texts were sent")
    ordered = dict(zip(places, entries, strict=True))
    vectors = [_vector(ordered[place].get("embedding"), place) for place in range(count)]
    if len({len(vector) for vector in vectors}) != 1:
        raise ProtocolError("the answer has vectors of different lengths")
    return Embedded(np.stack(vectors), _usage(document.get("usage"))[0])


def _vector(value: Any, place: int) -> Any:
    try:
        if isinstance(value, str) and value:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        if isinstance(value, list) and value and all(type(number) in (int, float) for number in value):
            with np.errstate(over="ignore"):  # float32 has no larger ones: they are infinite
                return np.array(value, np.float32)
    except (binascii.Error, ValueError, OverflowError):
        pass
    raise ProtocolError(f"embedding {place} isn't a vector of numbers")


# ---------------------------------------------------------------- streams
_BY_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "service_unavailable": 503,
}


def event_error(document: Mapping[str, Any]) -> AiaasError:
    """The error of an `error` object under a status that says success; its class as if its status had been told.

    Where nothing tells, it is 502: something behind the peer failed, and another peer may do better.
    """
    error = document.get("error")
    told = error if isinstance(error, Mapping) else {}
    codes = [told.get("code"), told.get("status"), told.get("type"), told.get("http_status_code")]
    status = next((code for code in codes if type(code) is int and 400 <= code < 600), None)
    status = status or next((_BY_KIND[code] for code in codes if isinstance(code, str) and code in _BY_KIND), 502)
    body = json.dumps({"error": error}).encode()
    return coded_error(body, status_error(status, {}, body, verb=True))


def coded_error(body: Buffer, error: AiaasError) -> AiaasError:
    """The error for a body with a code that says what no status does: OpenAI's, or one of `aiaas serve`."""
    try:
        document = from_json(bytes(body))
    except ValueError:
        return error
    found = document.get("error") if isinstance(document, dict) else None
    told: Mapping[str, Any] = found if isinstance(found, dict) else {}
    details: dict[str, Any] = {"status": error.status, "request_id": error.request_id}
    if told.get("code") == "context_length_exceeded":
        return ContextLengthError(error.message, hint="Send less, or ask for less with max_tokens", **details)
    if told.get("code") == "output_mismatch" and isinstance(told.get("output"), str):
        return OutputError(error.message, text=told["output"], hint="Its text is in .text", **details)
    return error


def means_model(body: Buffer) -> bool:
    """Whether the body of a 404 says that the model isn't there; else it is the path that isn't.

    OpenAI, vLLM and Ollama speak of the model, in a code or in words, and Azure of the deployment. What isn't JSON
    comes from what stands before the model.
    """
    words = bytes(body[:4096]).lower()
    return words.lstrip()[:1] == b"{" and (b"model" in words or b"deployment" in words)


class ToolPieces:
    """Calls of tools, put together from pieces.

    A piece belongs to the call of its index, unless its id says that a new one begins there; without an index to
    the call of its id, or else to the last one.
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, dict[str, Any]] = {}

    def add(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, Mapping):
                self._take(piece)

    def _take(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else {}
        index, told = piece.get("index"), piece.get("id")
        index = index if isinstance(index, int | str) else None
        name, arguments = function.get("name"), function.get("arguments")
        call = self._at.get(index) if index is not None else self._known(told)
        fresh = isinstance(told, str) and told != "" and call is not None and call["id"] not in ("", told)
        if call is None or fresh:
            call = {"id": "", "name": "", "arguments": ""}
            self._calls.append(call)
        if index is not None:
            self._at[index] = call
        if isinstance(told, str):
            call["id"] = call["id"] or told
        if isinstance(name, str):
            call["name"] = call["name"] or name
        if arguments is not None:
            call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _known(self, told: Any) -> dict[str, Any] | None:
        if isinstance(told, str) and told:
            return next((call for call in self._calls if call["id"] == told), None)
        return self._calls[-1] if self._calls else None

    def calls(self) -> tuple[ToolCall, ...]:
        """As they are now."""
        return tuple(
            ToolCall(call["id"] or f"call_{place}", call["name"], _object(call["arguments"]))
            for place, call in enumerate(self._calls)
        )


def _object(text: str) -> Mapping[str, Any] | str:
    """Arguments as an object; what is none stays text, for the tool to refuse."""
    try:
        found = from_json(text or "{}")
    except ValueError:
        return text
    return found if isinstance(found, dict) else text


class Thinking:
    """Parts streamed text into thought and answer by the tags, wherever these are cut.

    Blanks around the thought, and line ends after it, belong to neither.
    """

    def __init__(self) -> None:
        self._held, self._state = "", "before"
        self._begun = False

    def feed(self, text: str) -> tuple[str, str]:
        """The answer's and the thought's part of what can be told now."""
        if self._state == "answer":
            return text, ""
        self._held += text
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(THINK):
                self._state, self._held = "within", begun[len(THINK) :]
            elif THINK.startswith(begun):
                return "", ""
            else:
                self._state = "answer"
        thought = self._thought() if self._state == "within" else ""
        if self._state == "behind":
            self._held = self._held.lstrip("\n")
            self._state = "answer" if self._held else "behind"
        return (self._rest(), thought) if self._state == "answer" else ("", thought)

    def _thought(self) -> str:
        """What is thought for sure; blanks and the beginning of a tag are held back."""
        if not self._begun:
            self._held = self._held.lstrip()
        thought, found, rest = self._held.partition(UNTHINK)
        if found:
            self._state, self._held = "behind", rest
            return thought.rstrip()
        begun = next((n for n in range(len(UNTHINK) - 1, 0, -1) if thought.endswith(UNTHINK[:n])), 0)
        told = thought[: len(thought) - begun].rstrip()
        self._held, self._begun = thought[len(told) :], self._begun or told != ""
        return told

    def end(self) -> tuple[str, str]:
        """What was held back."""
        return ("", self._rest().rstrip()) if self._state == "within" else (self._rest(), "")

    def _rest(self) -> str:
        held, self._held = self._held, ""
        return held


class Assembler:
    """One streamed answer, from its chunks.

    `text` is what has come; `begun`: there was content; `finished`: a finish reason has come, or the end was told.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._logprobs: list[Any] = []
        self._tools, self._thinking = ToolPieces(), Thinking()
        self._usage: tuple[int | None, int | None] = (None, None)
        self._reason: str | None = None
        self.begun = self.finished = self.done = self._refused = False

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def take(self, data: bytes) -> list[Delta]:
        """The deltas of one event.

        Raises:
            ProtocolError: it is no JSON object. AiaasError: it is the peer's error.
        """
        if data[:1] != b"{" and data.lstrip().startswith(b"[DONE]"):
            self.finished = self.done = True
            return self._rest()
        chunk = _parsed(data, "an event of the stream")
        if chunk.get("error"):
            raise event_error(chunk)
        # what was parsed is dicts and lists; whether it is a Mapping costs as much to ask as the parsing
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = _usage(usage)
        entries = chunk.get("choices")
        deltas: list[Delta] = []
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                deltas += self._entry(entry)
        return deltas

    def _entry(self, entry: dict[str, Any]) -> list[Delta]:
        delta = entry.get("delta") or entry.get("message")
        if not isinstance(delta, dict):
            delta = {"content": entry.get("text")}
        content = delta.get("content")
        text = content if type(content) is str else _content(content)
        if len(delta) == 1 and text:  # as most are
            answer, thought = self._thinking.feed(text)
        else:
            refusal = _refusal(delta)
            answer, thought = self._thinking.feed(text or refusal)
            self._refused = self._refused or refusal != ""
            thought = (_reasoning(delta) or "") + thought
        if calls := delta.get("tool_calls"):
            self.begun = True
            self._tools.add(calls)
        if found := entry.get("logprobs"):
            self._logprobs += _logprobs(found) or []
        deltas = self._delta(answer, thought)
        if isinstance(reason := entry.get("finish_reason"), str):
            self._reason, self.finished = reason, True
            deltas += self._rest()
        return deltas

    def _delta(self, answer: str, thought: str) -> list[Delta]:
        if not (answer or thought):
            return []
        self.begun = True
        self._texts.append(answer)
        self._thoughts.append(thought)
        return [Delta(answer, thought)]

    def _rest(self) -> list[Delta]:
        return self._delta(*self._thinking.end())

    def calls(self) -> list[Delta]:
        """The calls of tools, whole, as the last delta."""
        calls = self._tools.calls()
        return [Delta(tool_calls=calls)] if calls else []

    def spoken(self, chat: Chat) -> Spoken:
        calls = self._tools.calls()
        choice = Choice(
            self.text,
            REFUSED if self._refused else self._reason or ("tool_calls" if calls else "stop"),
            "".join(self._thoughts) or None,
            calls,
            self._logprobs or None,
        )
        _check_given((choice,), chat)
        return Spoken((choice,), *self._usage)
