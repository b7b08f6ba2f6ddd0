"""What a script says to one call: made from what a test writes, and checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, ConfigError, InputError, StreamInterruptedError
from aiaas_sdk.records.chat import Choice, Embedded, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor, datatype_of, take

__all__ = ["Step", "checked_error", "cut", "deltas_of", "embedded", "spoken", "tensors"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The answer to one call.

    Attributes:
        verb: of the call that it answers; None for any, which an error does.
        after: seconds that it takes.
        answer: as a backend gives it; None where there is an error.
        deltas: what a stream gives before its answer or error.
    """

    verb: str | None
    after: float
    answer: Any = None
    deltas: tuple[Delta, ...] = ()
    error: AiaasError | None = None

    def __post_init__(self) -> None:
        if isinstance(self.after, bool) or not 0 <= self.after < float("inf"):
            raise ConfigError(f"after is {self.after!r}", hint="Give seconds from 0 on")

    def outcome(self) -> Any:
        """The answer; an error is raised anew each time."""
        if self.error is not None:
            raise copy.copy(self.error)
        return self.answer


def checked_error(error: BaseException) -> AiaasError:
    """The error. ConfigError where a model raises none like this."""
    if not isinstance(error, AiaasError):
        raise ConfigError(
            f"a model raises no {type(error).__name__}", hint="Give an error of aiaas_sdk.errors, as models do"
        )
    return error


# ---------------------------------------------------------------- arrays
def tensors(answer: Any, outputs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Arrays by output name, or a bare array for the only output, as tensors."""
    known = {spec.name: spec for spec in outputs}
    if not isinstance(answer, Mapping):
        if len(known) > 1:
            raise ConfigError(f"the model has the outputs {', '.join(known)}", hint="Give {NAME: array, ...}")
        answer = {next(iter(known), "output"): answer}
    if unknown := [name for name in answer if known and name not in known]:
        raise ConfigError(f"the model has no output {unknown[0]!r}; it has {', '.join(known)}")
    return {name: _tensor(name, value, known.get(name)) for name, value in answer.items()}


def _tensor(name: str, value: Any, spec: TensorSpec | None) -> Tensor:
    if spec is None:
        import numpy as np

        spec = TensorSpec(name, datatype_of(value), (-1,) * np.ndim(value))
    return take(copy.copy(value), spec, where="the scripted answer")


def embedded(vectors: Any) -> Embedded:
    """Vectors, one row a text, as float32."""
    import numpy as np

    try:
        array = np.array(vectors, np.float32)
    except (TypeError, ValueError):
        raise InputError("the vectors aren't numbers, or not all of one length", hint="Give [[...], ...]") from None
    if array.ndim != 2:
        raise InputError(f"the vectors have the shape {list(array.shape)}", hint="Give one row a text: [[...], ...]")
    return Embedded(array)


# ---------------------------------------------------------------- words
def spoken(
    text: str,
    *,
    reasoning: str | None,
    tool_calls: Sequence[ToolCall],
    finish_reason: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
) -> Spoken:
    """One answer in words. Unless it is said, it ends for its tool calls, or because it is done."""
    _check(text, str, "the text", "text")
    for call in tool_calls:
        _check(call, ToolCall, "a tool call", "aiaas.ToolCall(id, name, arguments)")
    reason = finish_reason or ("tool_calls" if tool_calls else "stop")
    return Spoken((Choice(text, reason, reasoning, tuple(tool_calls)),), input_tokens, output_tokens)


def deltas_of(pieces: Sequence[str | Delta]) -> tuple[Delta, ...]:
    """Texts and deltas as deltas."""
    if isinstance(pieces, str):
        raise ConfigError("the pieces of a stream are one text", hint="Give a list of texts or of aiaas.Delta")
    for piece in pieces:
        _check(piece, (str, Delta), "a piece of a stream", "text or aiaas.Delta")
    return tuple(Delta(piece) if isinstance(piece, str) else piece for piece in pieces)


def cut(error: AiaasError, deltas: Sequence[Delta]) -> AiaasError:
    """What ends a stream early: an interruption holds what had come, as that of any model."""
    if isinstance(error, StreamInterruptedError) and error.partial is None:
        error = copy.copy(error)
        error.partial = "".join(delta.text for delta in deltas)
    return error


def _check(value: Any, kinds: type | tuple[type, ...], what: str, wanted: str) -> None:
    if not isinstance(value, kinds):
        raise ConfigError(f"{what} is {kind_of(value)}", hint=f"Give {wanted}")
