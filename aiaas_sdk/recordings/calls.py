"""One recorded call: what was asked, and what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.errors import AiaasError
from aiaas_sdk.records.call import Call
from aiaas_sdk.tensors import Tensor, to_bytes

__all__ = ["LEARNT", "REQUEST_ID", "Asked", "Outcome", "Recorded", "label", "learnt"]

LEARNT: Mapping[str, type] = {
    "allowed": int,
    "attempts": int,
    "backend": str,
    "input_tokens": int,
    "output_tokens": int,
    "version": str,
}
"""What a `Call` learns on its way and a recording keeps. Times aren't among it: they differ with each run."""
REQUEST_ID = "recorded"
"""Stands for every request id: each run has new ones, and a file that is recorded again should stay the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A call as it was asked.

    Attributes:
        address: of the model, as the caller wrote it: a name stays a name. A route is "[address, address]".
        verb: "predict"; "load", "open" and "ready" for what goes before.
        inputs: the tensors by name.
        options: what else decides the answer, as JSON has it ("outputs" of predict).
    """

    address: str
    verb: str
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> Hashable:
        """Equal for equal calls: the same names, datatypes, shapes, bytes and options."""
        inputs = [(name, t.datatype, t.shape, bytes(to_bytes(t))) for name, t in sorted(self.inputs.items())]
        return self.address, self.verb, tuple(inputs), json.dumps(self.options, sort_keys=True)

    def __str__(self) -> str:
        """The call without its contents: "predict of digits with x FP32 [2, 3], outputs ['y']"."""
        inputs = ", ".join(f"{name} {t.datatype} {list(t.shape)}" for name, t in self.inputs.items())
        options = "".join(f", {name} {value!r}" for name, value in sorted(self.options.items()))
        return f"{self.verb} of {self.address}" + (f" with {inputs}" if inputs else "") + options


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a call: an answer, or an error.

    Attributes:
        answer: tensors by name of predict, a ModelInfo of open, a truth value of ready, None of load.
        error: the failure; None where there is an answer.
        learnt: values of `LEARNT`, as far as they were known.
        request_id: the peer knows the call by an id.
    """

    answer: Any = None
    error: AiaasError | None = None
    learnt: Mapping[str, Any] = field(default_factory=dict)
    request_id: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A call and its outcome; `line` is its line in the file, counted from 1."""

    asked: Asked
    outcome: Outcome
    line: int = 0


def learnt(call: Call) -> dict[str, Any]:
    return {name: value for name in LEARNT if (value := getattr(call, name)) not in (None, 0)}


def label(where: str | PathLike[str] | Sequence[str | PathLike[str]]) -> str:
    """An address as recordings name it. AddressError where it is none."""
    if isinstance(where, str | PathLike):
        return str(parse(os.fspath(where)))
    return f"[{', '.join(label(member) for member in where)}]"
