"""A language model that does what the words of its last message tell it, as an installed backend: `talker:`.

    fail            raises
    long, busy      raises ContextLengthError, RateLimitedError
    once:KEY        raises RateLimitedError the first time that it is told this
    wait:SECONDS    pauses
    think:WORD      thinks it
    ask:TOOL        asks for that tool
    flood           says a mebibyte of it
    forever         says "on" every 20 ms, some thousand times
    mend:NUMBER     says no document, and when it is told so '{"x": NUMBER}'

Anything else is said again. `STEPS` are the pieces that it has made.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import ContextLengthError, RateLimitedError
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.chat import Chat, Choice, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.records.model import ModelInfo

STEPS: list[str] = []
TOLD: set[str] = set()


class TalkerBackend(LocalBackend):
    scheme = "talker"

    def open(self) -> ModelInfo:
        return ModelInfo(name="talker", version="7", verbs=self.verbs(), platform="talker")

    def generate(self, chat: Chat) -> Spoken:
        steps = self.stream(chat)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def stream(self, chat: Chat) -> Generator[Delta, None, Spoken]:
        said: list[Delta] = []
        text = chat.messages[-1].text
        if text.startswith("This doesn't fit") and "mend:" in chat.messages[0].text:
            text = f'{{"x": {chat.messages[0].text.partition("mend:")[2]}}}'
        for delta in _told(text.split()):
            STEPS.append(delta.text)
            said.append(delta)
            yield delta
        calls = tuple(call for delta in said for call in delta.tool_calls)
        thought = "".join(delta.reasoning for delta in said)
        text = "".join(delta.text for delta in said)
        return Spoken((Choice(text, "tool_calls" if calls else "stop", thought or None, calls),))


def _told(words: list[str]) -> Iterator[Delta]:
    for word in words:
        kind, _, value = word.partition(":")
        if word == "fail":
            raise RuntimeError("lost the thread")
        if word == "long":
            raise ContextLengthError("9 tokens are more than the 8 of this model's context")
        if word == "busy":
            raise RateLimitedError("too much to say", retry_after=3)
        if kind == "once" and word not in TOLD:
            TOLD.add(word)
            raise RateLimitedError("not the first time", retry_after=1)
        if kind == "once":
            continue
        if kind == "wait":
            time.sleep(float(value))
        elif kind == "think":
            yield Delta(reasoning=value)
        elif kind == "ask":
            yield Delta(tool_calls=(ToolCall(f"id-{value}", value, {}),))
        elif word == "forever":
            for _ in range(3000):
                time.sleep(0.02)
                yield Delta("on ")
        elif word == "flood":
            for _ in range(64):
                yield Delta("x" * 16384)
        else:
            yield Delta(word + " ")


@hookimpl
def aiaas_backend(scheme: str) -> type[TalkerBackend]:
    return TalkerBackend
