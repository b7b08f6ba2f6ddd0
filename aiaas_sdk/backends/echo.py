"""`echo:` gives the inputs back as outputs: the reference backend, for tests and for trying things out.

It speaks, too: it says the last message again, and embeds a text by its letters. A message whose lines each spell a
call of an offered tool, as in `add({"a": 1, "b": 2})`, is answered with these calls.

`echo:?x=FP32[-1,3]&mask=BOOL[-1]` declares a signature; `echo:` alone takes any names, shapes and datatypes.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from pydantic_core import from_json

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import AddressError, InputError
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.chat import Chat, Choice, Embedded, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor

_CALL = re.compile(r"\s*([A-Za-z_][\w-]*)\((\{.*\})?\)\s*")
_SPEC = re.compile(r"([A-Za-z_][\w.-]*)=([A-Z0-9]+)\[((?:-1|\d+)(?:,(?:-1|\d+))*)?\]")


class EchoBackend(LocalBackend):
    """The outputs are the inputs."""

    scheme = "echo"

    def prepare(self) -> None:
        _signature(self.address.target)

    def open(self) -> ModelInfo:
        specs = _signature(self.address.target)
        return ModelInfo(
            name="echo", version="1", versions=("1",), inputs=specs, outputs=specs, verbs=self.verbs(), platform="echo"
        )

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        for name in outputs:
            if name not in inputs:
                raise InputError(f"echo has no output {name!r}; its outputs are its inputs: {', '.join(inputs)}")
        return {name: inputs[name] for name in outputs or inputs}

    def generate(self, chat: Chat) -> Spoken:
        """The text of the last message, cut at `stop` and at `max_tokens` words, `n` times.

        Each word is a token, and none other could stand there: the logarithm of its probability is 0.
        """
        calls = _calls(chat)
        words, reason = ([], "tool_calls") if calls else _said(chat)
        choice = Choice("".join(words), reason, tool_calls=calls, logprobs=_logprobs(words, chat))
        count = chat.sampling.get("n", 1)
        return Spoken(
            (choice,) * count, sum(len(_words(message.text)) for message in chat.messages), count * len(words)
        )

    def stream(self, chat: Chat) -> Generator[Delta, None, Spoken]:
        """As `generate`, word by word."""
        spoken = self.generate(chat)
        for word in _words(spoken.choices[0].text):
            yield Delta(word)
        if calls := spoken.choices[0].tool_calls:
            yield Delta(tool_calls=calls)
        return spoken

    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        """How often each letter from a to z stands in a text, as a vector of length 1; `dimensions` cuts it."""
        vectors = np.array([[text.lower().count(letter) for letter in ascii_lowercase] for text in texts], np.float32)
        vectors = vectors[:, :dimensions]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embedded(vectors / np.where(lengths, lengths, 1), sum(len(_words(text)) for text in texts))


def _said(chat: Chat) -> tuple[list[str], str]:
    text = chat.messages[-1].text
    for stop in chat.sampling.get("stop", ()):
        text = text.partition(stop)[0]
    words = _words(text)
    most = chat.sampling.get("max_tokens", len(words))
    return words[:most], "stop" if most >= len(words) else "length"


def _calls(chat: Chat) -> tuple[ToolCall, ...]:
    """The calls that the last message spells; none where a line of it is no call of an offered tool."""
    offered, last = {tool.name for tool in chat.tools}, chat.messages[-1]
    calls = []
    for place, line in enumerate(last.text.splitlines() if offered and last.role == "user" else ()):
        spelled = _CALL.fullmatch(line)
        if spelled is None or spelled[1] not in offered:
            return ()
        calls.append(ToolCall(f"call_{place}", spelled[1], _arguments(spelled[2] or "{}")))
    return tuple(calls)


def _arguments(text: str) -> Mapping[str, Any] | str:
    try:
        found: Mapping[str, Any] = from_json(text)
    except ValueError:
        return text
    return found


def _logprobs(words: Sequence[str], chat: Chat) -> list[dict[str, Any]] | None:
    others = chat.sampling.get("logprobs")
    if others is None:
        return None
    sure = [{"token": word, "logprob": 0.0} for word in words]
    return [{**word, "top_logprobs": [word] if others else []} for word in sure]


def _words(text: str) -> list[str]:
    """Words, each with the blanks before it: joined, they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _signature(target: str) -> tuple[TensorSpec, ...]:
    text = target.removeprefix("?")
    if not text:
        return ()
    return tuple(_spec(part) for part in text.split("&"))


def _spec(text: str) -> TensorSpec:
    match = _SPEC.fullmatch(text)
    if match is None or match[2] not in DATATYPES:
        raise AddressError(f"echo: can't read {text!r}", hint="Write NAME=DATATYPE[shape], as in echo:?x=FP32[-1,3]")
    shape = tuple(int(size) for size in match[3].split(",")) if match[3] else ()
    return TensorSpec(match[1], match[2], shape)


@hookimpl
def aiaas_backend(scheme: str) -> type[EchoBackend]:
    return EchoBackend
