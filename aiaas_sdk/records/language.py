"""Records of the language verbs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypedDict

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.prediction import Served

__all__ = [
    "AsyncStream",
    "Attachment",
    "Delta",
    "Embeddings",
    "Generation",
    "Message",
    "Prompt",
    "Sampling",
    "Stream",
    "Tool",
    "ToolCall",
]

ROLES = ("system", "developer", "user", "assistant", "tool")


class Sampling(TypedDict, total=False):
    """How text is drawn. What isn't given is the model's own default.

    temperature: 0 takes the likeliest token each time; top_p, top_k: draw only from the likeliest tokens that
    together have this probability, or from that many. max_tokens: of the answer. stop: texts at which it ends.
    seed: the same seed draws the same tokens, as far as the peer can. n: how many answers. logprobs: the
    logarithms of the probabilities of each token and of so many others. timeout: seconds for the whole call.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: str | Sequence[str]
    seed: int
    n: int
    logprobs: int
    timeout: float | None


Tool: TypeAlias = "Callable[..., Any] | Mapping[str, Any]"
"""A typed function; or a tool as OpenAI's API has it, which the model may ask for and nobody runs here."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        id: the peer's name of this call; the tool's answer carries it.
        name: the tool.
        arguments: its arguments by name; text as it came where it is no JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Attachment:
    """An image, a sound or a file within a message.

    Attributes:
        data: its bytes.
        media_type: "image/png", "audio/wav", "application/pdf", ...
        name: a file's name, where the peer should see one.
        url: where the peer finds it, instead of `data`. It isn't fetched here; `aiaas.fetch` makes data of it.
    """

    data: bytes = b""
    media_type: str = "application/octet-stream"
    name: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.url):
            raise InputError("an attachment has either data or url")

    @classmethod
    def file(cls, path: str | PathLike[str], media_type: str | None = None) -> Attachment:
        """The attachment of a file; its media type by its name's ending unless it is given."""
        import mimetypes

        path = Path(path)
        guessed = media_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(path.read_bytes(), guessed, path.name)

    @property
    def kind(self) -> str:
        """The first part of its media type: "image", "audio", ..."""
        return self.media_type.partition("/")[0]

    @property
    def data_url(self) -> str:
        """Its bytes as a data URL (RFC 2397)."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        return f"<Attachment {self.media_type} {f'{len(self.data)} bytes' if self.data else 'by url'}>"


Part: TypeAlias = "str | Attachment | Mapping[str, Any]"
"""Text, an attachment, or a part as the peer's own protocol has it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: "system", "developer", "user", "assistant" or "tool".
        content: text, or a list of texts and attachments.
        tool_calls: the calls that an assistant asked for.
        tool_call_id: of a tool's answer: the call that it answers.
        name: who speaks, where there are several of one role.
    """

    role: str
    content: str | Sequence[Part] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"a message has the role {self.role!r}", hint=f"One of {', '.join(ROLES)}")

    @property
    def text(self) -> str:
        """Its texts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part if isinstance(part, str) else _text(part) for part in self.content)


def _text(part: Attachment | Mapping[str, Any]) -> str:
    found = part.get("text") if isinstance(part, Mapping) else None
    return found if isinstance(found, str) else ""


Prompt: TypeAlias = str | Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Generation(Served):
    """A generated answer.

    Attributes:
        text: what it says; reasoning: what it thought before, kept apart, None where the peer shows none.
        message: the same as a message, to go on with.
        tool_calls: the calls of tools that it asks for.
        finish_reason: "stop", "length" (max_tokens or the context's end), "tool_calls", "content_filter", or the
            peer's own word.
        logprobs: for each token its text, logarithm of its probability, and the likeliest others: a list of
            `{"token", "logprob", "top_logprobs"}`; None where they weren't asked for.
        others: the further answers where `n` asked for several.
    """

    __slots__ = ("finish_reason", "logprobs", "others", "reasoning", "text", "tool_calls")

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    logprobs: Any
    others: tuple[Generation, ...]

    def __init__(
        self,
        call: Call,
        text: str,
        *,
        finish_reason: str,
        reasoning: str | None = None,
        tool_calls: tuple[ToolCall, ...] = (),
        logprobs: Any = None,
        others: tuple[Generation, ...] = (),
    ) -> None:
        super().__init__(call)
        put = object.__setattr__
        put(self, "text", text)
        put(self, "reasoning", reasoning)
        put(self, "tool_calls", tool_calls)
        put(self, "finish_reason", finish_reason)
        put(self, "logprobs", logprobs)
        put(self, "others", others)

    @property
    def message(self) -> Message:
        return Message("assistant", self.text, self.tool_calls)

    def replaced(self, text: str, others: tuple[Generation, ...] = ()) -> Generation:
        """The same with another text, and other further answers."""
        return _generation(self._call, text, self.finish_reason, self.reasoning, self.tool_calls, self.logprobs, others)

    def __repr__(self) -> str:
        return f"<Generation of {len(self.text)} characters, {self.finish_reason}, by {self.model} ({self.backend})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _generation, (
            self._call,
            self.text,
            self.finish_reason,
            self.reasoning,
            self.tool_calls,
            self.logprobs,
            self.others,
        )


def _generation(
    call: Call,
    text: str,
    finish_reason: str,
    reasoning: str | None,
    tool_calls: tuple[ToolCall, ...],
    logprobs: Any,
    others: tuple[Generation, ...],
) -> Generation:
    return Generation(
        call,
        text,
        finish_reason=finish_reason,
        reasoning=reasoning,
        tool_calls=tool_calls,
        logprobs=logprobs,
        others=others,
    )


class Embeddings(Served):
    """One vector a text: `array` is float32 of shape (texts, dimensions), in the order of the texts."""

    __slots__ = ("array",)

    array: Any

    def __init__(self, call: Call, array: Any) -> None:
        super().__init__(call)
        object.__setattr__(self, "array", array)

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        return f"<Embeddings {list(self.array.shape)} by {self.model} ({self.backend})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Embeddings, (self._call, self.array)


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
