"""A streamed answer."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.records.chat import Chat, Choice, Spoken
from aiaas_sdk.records.language import Delta
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

__all__ = ["Assembler"]


class Assembler:
    """One streamed answer, from its chunks.

    `text` is what has come; `begun`: there was content; `finished`: a finish reason has come, or the end was told.
    `plain`: the text of the last chunk, where that said nothing else.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._logprobs: list[Any] = []
        self._tools, self._thinking = ToolPieces(), Thinking()
        self._usage: tuple[int | None, int | None] = (None, None)
        self._reason: str | None = None
        self.begun = self.finished = self.done = self._refused = False
        self.plain: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def take(self, data: bytes) -> list[Delta]:
        """The deltas of one event.

        Raises:
            ProtocolError: it is no JSON object. AiaasError: it is the peer's error.
        """
        self.plain = None
        if data[:1] != b"{" and data.lstrip().startswith(b"[DONE]"):
            self.finished = self.done = True
            return self._rest()
        chunk = parsed(data, "an event of the stream")
        if chunk.get("error"):
            raise event_error(chunk)
        # what was parsed is dicts and lists; whether it is a Mapping costs as much to ask as the parsing
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage_of(usage)
        entries = found if isinstance(found := chunk.get("choices"), list) else []
        deltas: list[Delta] = []
        for entry in entries:
            if isinstance(entry, dict):
                deltas += self._entry(entry)
        if isinstance(usage, dict) or len(entries) != 1:
            self.plain = None
        return deltas

    def more(self, text: str) -> list[Delta]:
        """The deltas of a chunk that says nothing but this text."""
        return self._delta(*self._thinking.feed(text))

    def _entry(self, entry: dict[str, Any]) -> list[Delta]:
        delta = entry.get("delta") or entry.get("message")
        if not isinstance(delta, dict):
            delta = {"content": entry.get("text")}
        content = delta.get("content")
        text = content if type(content) is str else content_of(content)
        if len(delta) == 1 and text:  # as most are
            answer, thought = self._thinking.feed(text)
            self.plain = text if not entry.get("logprobs") and entry.get("finish_reason") is None else None
        else:
            refusal = refusal_of(delta)
            answer, thought = self._thinking.feed(text or refusal)
            self._refused = self._refused or refusal != ""
            thought = (reasoning_of(delta) or "") + thought
        if calls := delta.get("tool_calls"):
            self.begun = True
            self._tools.add(calls)
        if found := entry.get("logprobs"):
            self._logprobs += logprobs_of(found) or []
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
        check_given((choice,), chat)
        return Spoken((choice,), *self._usage)
