"""One recorded call: what was asked, and what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import AiaasError
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.language import Delta
from aiaas_sdk.tensors import Tensor, to_bytes

__all__ = ["BASE64", "LEARNT", "REQUEST_ID", "Asked", "Outcome", "Recorded", "compared", "label", "learnt"]

LEARNT: Mapping[str, type] = {
    "allowed": int,
    "attempts": int,
    "backend": str,
    "input_tokens": int,
    "model": str,
    "output_tokens": int,
    "version": str,
}
"""What a `Call` learns on its way and a recording keeps. Times aren't among it: they differ with each run."""
REQUEST_ID = "recorded"
"""Stands for every request id: each run has new ones, and a file that is recorded again should stay the same."""
BASE64 = "base64"
"""The key of an attachment's bytes, which are there to be looked at: two are equal where size and digest are."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A call as it was asked.

    Attributes:
        address: of the model, as the caller wrote it: a name stays a name. A route is "[address, address]".
        verb: "predict", "generate", ...; "load", "open" and "ready" for what goes before.
        inputs: the tensors by name.
        words: what is asked in words, as JSON has it: "prompt", "tools" and "schema", or "texts".
        options: what else decides the answer, as JSON has it: "outputs" of predict, sampling, "dimensions" of embed.
    """

    address: str
    verb: str
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> Hashable:
        """Equal for equal calls: the same names, datatypes, shapes, bytes, words and options."""
        inputs = [(name, t.datatype, t.shape, bytes(to_bytes(t))) for name, t in sorted(self.inputs.items())]
        written = json.dumps([compared(self.words), self.options], sort_keys=True)
        return self.address, self.verb, tuple(inputs), written

    def __str__(self) -> str:
        """The call without its contents: "predict of digits with x FP32 [2, 3], outputs ['y']"."""
        inputs = [f"{name} {t.datatype} {list(t.shape)}" for name, t in self.inputs.items()]
        told = ", ".join([*inputs, *(_told(name, value) for name, value in self.words.items())])
        options = "".join(f", {name} {value!r}" for name, value in sorted(self.options.items()))
        return f"{self.verb} of {self.address}" + (f" with {told}" if told else "") + options


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a call: an answer, or an error.

    Attributes:
        answer: tensors by name of predict, a Spoken of generate and stream, an Embedded of embed, a ModelInfo of
            open, a truth value of ready, None of load; None of a stream that its reader left.
        deltas: what a stream gave before its answer or error.
        error: the failure; None where there is an answer.
        learnt: values of `LEARNT`, as far as they were known.
        request_id: the peer knows the call by an id.
    """

    answer: Any = None
    error: AiaasError | None = None
    learnt: Mapping[str, Any] = field(default_factory=dict)
    request_id: bool = False
    deltas: tuple[Delta, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A call and its outcome; `line` is its line in the file, counted from 1."""

    asked: Asked
    outcome: Outcome
    line: int = 0


def learnt(call: Call) -> dict[str, Any]:
    return {name: value for name in LEARNT if (value := getattr(call, name)) not in (None, 0, "")}


def compared(words: Mapping[str, Any]) -> Mapping[str, Any]:
    """Words without the bytes of attachments."""
    prompt = words.get("prompt")
    return {**words, "prompt": [_compared(message) for message in prompt]} if isinstance(prompt, list) else words


def _compared(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message["content"]
    return {**message, "content": [_without_bytes(part) for part in content]} if isinstance(content, list) else message


def _without_bytes(part: Any) -> Any:
    if not isinstance(part, Mapping) or "type" in part:  # text, or as the peer's protocol has it
        return part
    return {name: value for name, value in part.items() if name != BASE64}


def _told(name: str, words: Any) -> str:
    """How much there is of something, without its contents."""
    if isinstance(words, str):
        return f"{with_article(name)} of {len(words)} characters"
    if name == "prompt":
        return f"{len(words)} message{'' if len(words) == 1 else 's'}"
    if name == "texts":
        return f"{len(words)} text{'' if len(words) == 1 else 's'}"
    if name == "tools":
        return f"the tools {', '.join(str(tool.get('name')) for tool in words)}"
    return f"the schema {words.get('name')}"


def label(where: str | PathLike[str] | Sequence[str | PathLike[str]]) -> str:
    """An address as recordings name it. AddressError where it is none."""
    if isinstance(where, str | PathLike):
        return str(parse(os.fspath(where)))
    return f"[{', '.join(label(member) for member in where)}]"
