"""From what a user hands to a language verb to what a backend is asked: checked, and plain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError
from aiaas_sdk.records.language import ROLES, Attachment, Message, Part, ToolCall

__all__ = ["NAMES", "messages_of", "sampling_of", "texts_of"]


# ---------------------------------------------------------------- messages
def messages_of(prompt: Any) -> tuple[Message, ...]:
    """A prompt as messages: text is one of the user.

    Raises:
        InputError: it is neither text nor a list of messages.
    """
    if isinstance(prompt, str):
        return (Message("user", _sendable(prompt, "the prompt")),)
    if isinstance(prompt, Message | Mapping):
        raise InputError("the prompt is one message", hint="Give a list of messages, or text")
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise InputError(f"the prompt is {kind_of(prompt)}", hint="Give text, or a list of messages")
    if not prompt:
        raise InputError("the prompt is an empty list", hint="Give one message at least")
    return tuple(_message(entry, place) for place, entry in enumerate(prompt))


def _message(entry: Any, place: int) -> Message:
    if isinstance(entry, Message):
        _check_content(entry.content, place)
        return entry
    if not isinstance(entry, Mapping):
        raise InputError(f"message {place} is {kind_of(entry)}", hint='Give {"role": ..., "content": ...}')
    unknown = sorted(set(map(str, entry)) - {"role", "content", "tool_calls", "tool_call_id", "name"})
    if unknown:
        hint = "A message has role, content, tool_calls, tool_call_id and name"
        raise InputError(f"message {place} has the unknown key {unknown[0]!r}", hint=hint)
    role, content = entry.get("role"), entry.get("content")
    if role is None:
        raise InputError(f"message {place} has no role", hint='As in {"role": "user", "content": "..."}')
    if role not in ROLES:
        raise InputError(f"message {place} has the role {str(role)[:40]!r}", hint=f"One of {', '.join(ROLES)}")
    calls = _tool_calls(entry.get("tool_calls"), place)
    if content is None and calls:
        content = ""
    told, name = (_text_or_none(entry, key, place) for key in ("tool_call_id", "name"))
    return Message(role, _check_content(content, place), calls, told, name)


def _text_or_none(entry: Mapping[str, Any], key: str, place: int) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"message {place} has a {key} of type {type(value).__name__}", hint="Give text")
    return value


def _check_content(content: Any, place: int) -> str | Sequence[Part]:
    if isinstance(content, str):
        return _sendable(content, f"message {place}")
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InputError(f"message {place} has content of type {type(content).__name__}", hint="Give text, or a list")
    for part in content:
        if not isinstance(part, str | Attachment | Mapping):
            raise InputError(
                f"message {place} has a part of type {type(part).__name__}", hint="Give text or aiaas.Attachment"
            )
        if isinstance(part, Mapping) and not isinstance(part.get("type"), str):
            raise InputError(f"message {place} has a part without a type", hint='As in {"type": "text", "text": "..."}')
        if isinstance(part, str):
            _sendable(part, f"message {place}")
    return content


def _sendable(text: str, what: str) -> str:
    """The text; a half of a surrogate pair has no bytes in UTF-8, so no peer and no tokenizer could take it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} has half a character at {error.start} (a lone surrogate)",
            hint='Text that was cut or decoded badly has these; text.encode("utf-8", "replace").decode() drops them',
        ) from None
    return text


def _tool_calls(calls: Any, place: int) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes | bytearray):
        raise InputError(f"message {place} has tool_calls of type {type(calls).__name__}", hint="Give a list")
    return tuple(_tool_call(call, place) for call in calls)


def _tool_call(call: Any, place: int) -> ToolCall:
    """A call as `ToolCall`, or as OpenAI has it."""
    if isinstance(call, ToolCall):
        return call
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(
            f"message {place} has a tool call that is none", hint="Give aiaas.ToolCall(id, name, arguments)"
        )
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str | Mapping):
        raise InputError(
            f"message {place} has a tool call with arguments of type {type(arguments).__name__}",
            hint="Give a mapping, or a JSON object as text",
        )
    return ToolCall(str(call.get("id", "")), function["name"], arguments)


def texts_of(texts: Any) -> tuple[str, ...]:
    """The texts to embed.

    Raises:
        InputError: there is none, or something else than text.
    """
    if isinstance(texts, str):
        texts = (texts,)
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray):
        raise InputError(f"embed was given {kind_of(texts)}", hint="Give a text, or a list of texts")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {place} is {kind_of(text)}", hint="Give texts")
        _sendable(text, f"text {place}")
    if not texts:
        raise InputError("embed was given no text", hint="Give one at least")
    return tuple(texts)


# ---------------------------------------------------------------- sampling
def _number(low: float, high: float, *, above: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(_float(value)):
            _refuse(name, value, "a number")
        if not (low < value if above else low <= value) or value > high:
            _refuse(name, value, f"{'above' if above else 'from'} {low:g} {'and at most' if above else 'to'} {high:g}")
        return float(value)

    return check


def _float(value: float) -> float:
    """A whole number may be too large for a float, which is then none within any bounds."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _whole(low: int, high: int) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            _refuse(name, value, f"a whole number from {low} to {high}")
        return value

    return check


def _stops(name: str, value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, Sequence) or not stops or not all(isinstance(stop, str) and stop for stop in stops):
        _refuse(name, value, "a text, or a list of texts, none of them empty")
    return tuple(stops)


def _refuse(name: str, value: Any, wanted: str) -> NoReturn:
    raise InputError(f"{name} is {_shown(value)}; it is {wanted}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value)[:80] if isinstance(value, int | float | str) else kind_of(value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1, above=True),
    "top_k": _whole(1, 2**31 - 1),
    "max_tokens": _whole(1, 2**31 - 1),
    "stop": _stops,
    "seed": _whole(-(2**63), 2**63 - 1),
    "n": _whole(1, 128),
    "logprobs": _whole(0, 20),
}
NAMES = tuple(_CHECKS)
"""The options of sampling, without `timeout`."""


def sampling_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, checked; None is as if not given.

    Raises:
        InputError: an option is unknown, or its value can't be.
    """
    for name in given:
        if name not in _CHECKS:
            import difflib

            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(NAMES)}"
            raise InputError(f"unknown option of sampling {name!r}", hint=hint)
    return {name: _CHECKS[name](name, value) for name, value in given.items() if value is not None}
