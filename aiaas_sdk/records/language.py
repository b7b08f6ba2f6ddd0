"""Records of the language verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypedDict

from aiaas_sdk.records.prediction import Served

__all__ = ["AsyncStream", "Delta", "Embeddings", "Generation", "Message", "Prompt", "Sampling", "Stream", "ToolCall"]


class Sampling(TypedDict, total=False):
    """How text is drawn; `timeout` in seconds."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: str | Sequence[str]
    seed: int
    n: int
    logprobs: int
    timeout: float | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: role "system", "user", "assistant" or "tool"."""

    role: str
    content: str | Sequence[Mapping[str, Any]]


Prompt: TypeAlias = str | Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Generation(Served):
    """A generated answer."""

    __slots__ = ("finish_reason", "logprobs", "message", "reasoning", "text", "tool_calls")

    text: str
    message: Message
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    logprobs: Any


class Embeddings(Served):
    """One vector a text: `array` is float32 of shape (texts, dimensions)."""

    __slots__ = ("array",)

    array: Any


class Stream(Protocol):
    """A streamed answer: an iterator of deltas and a context manager."""

    text: str

    def __iter__(self) -> Stream: ...
    def __next__(self) -> Delta: ...
    def result(self) -> Generation: ...
    def close(self) -> None: ...
    def __enter__(self) -> Stream: ...
    def __exit__(self, *exc: object) -> None: ...


class AsyncStream(Protocol):
    """The awaited twin of `Stream`."""

    text: str

    def __aiter__(self) -> AsyncStream: ...
    async def __anext__(self) -> Delta: ...
    async def result(self) -> Generation: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> AsyncStream: ...
    async def __aexit__(self, *exc: object) -> None: ...
