"""What a language model is asked, and what a backend gives back: the records between the verbs and the backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiaas_sdk.records.language import Message, ToolCall

__all__ = ["Chat", "Choice", "Embedded", "Spoken", "ToolSpec"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may ask for; `parameters` is the JSON schema of its arguments.

    `strict`: the arguments must fit the schema, for peers that can see to that.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Chat:
    """What a language model is asked.

    Attributes:
        messages: the conversation.
        text: the prompt, where it was given as text: a model without chat completes it as it is.
        sampling: the options of `Sampling` that were given, checked, without `timeout`.
        tools: what the model may ask for.
        schema: the JSON schema that the answer has to fit, and its name.
        gap: seconds that a stream may go without content; None for no limit.
    """

    messages: tuple[Message, ...]
    text: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    schema: tuple[str, Mapping[str, Any]] | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer; the fields are those of `Generation`."""

    text: str
    finish_reason: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: Any = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """All answers, and what they took in tokens; None is unknown."""

    choices: tuple[Choice, ...]
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, float32 of shape (texts, dimensions), and the tokens of the texts."""

    array: Any
    input_tokens: int | None = None
