"""A model that answers what a test tells it to.

    script = Script()
    script.answer([[0.1, 0.9]])
    script.answer(aiaas.RateLimitedError("slow down", retry_after=2))

    model = aiaas.load(script.address)         # a Model like any other; load_async gives an AsyncModel
    model.predict(images)                      # [[0.1, 0.9]]
    script.calls[0].inputs                     # what it was asked

In pytest the fixture `aiaas_scripted` is one. To stand in for a name that the application loads, set the name's
variable: `monkeypatch.setenv("AIAAS_MODEL_DIGITS", script.address)`.
"""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aiaas_sdk.backends.base import Backend
from aiaas_sdk.errors import AddressError, AiaasError, ConfigError, UnsupportedOperationError
from aiaas_sdk.flow import Flow, Sleep
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.recordings.calls import Asked
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Kind, Tensor, datatype_of, take

__all__ = ["Script", "ScriptedBackend", "ScriptedCall"]

Signature = Mapping[str, tuple[str, Sequence[int]]]
"""Name -> (datatype, shape), with -1 for an axis of any size."""
NAME = "scripted"
_numbers = itertools.count(1)
_scripts: weakref.WeakValueDictionary[str, Script] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class ScriptedCall:
    """What a scripted model was asked.

    Attributes:
        inputs: numpy arrays by name, copied.
        outputs: the outputs that were asked for; empty for all.
    """

    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    tensors: Mapping[str, Tensor]
    error: AiaasError | None
    after: float


class Script:
    """The answers of one model, in order, and the calls that it got. Safe across threads.

    Args:
        inputs, outputs: its signature; without one the model takes any inputs, and a bare array as an answer is
            its output "output".
        labels: the class names, in the order of the scores.
    """

    def __init__(
        self, *, inputs: Signature | None = None, outputs: Signature | None = None, labels: Sequence[str] | None = None
    ) -> None:
        self.calls: list[ScriptedCall] = []
        self.overruns: list[UnsupportedOperationError] = []
        """The calls for which there was no answer, as the errors that they raised."""
        self._answers: deque[_Answer] = deque()
        self._guard = threading.Lock()
        self.address = f"{NAME}:{next(_numbers)}"
        """What `load` takes."""
        self.signature(inputs=inputs, outputs=outputs, labels=labels)
        _scripts[self.address.removeprefix(f"{NAME}:")] = self

    def signature(
        self, *, inputs: Signature | None = None, outputs: Signature | None = None, labels: Sequence[str] | None = None
    ) -> Script:
        """Say what the model takes and gives, before it is opened; see the arguments of the class."""
        self._info = ModelInfo(
            name=NAME,
            version="1",
            versions=("1",),
            inputs=_specs(inputs),
            outputs=_specs(outputs),
            verbs=ScriptedBackend.verbs(),
            labels=None if labels is None else tuple(labels),
            platform=NAME,
        )
        return self

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self._info

    @property
    def left(self) -> int:
        """How many answers nobody has asked for yet."""
        return len(self._answers)

    def answer(self, answer: Any, *, after: float = 0.0) -> Script:
        """Add the answer to one call of `predict`.

        Args:
            answer: arrays by output name; a bare array for the only output; an AiaasError, which is raised.
            after: seconds that the answer takes. Past the call's deadline, the call fails without waiting for it.

        Raises:
            InputError: it doesn't fit the signature. ConfigError: it is no possible answer.
        """
        if not 0 <= after < float("inf"):
            raise ConfigError(f"after is {after!r}", hint="Give seconds from 0 on")
        if isinstance(answer, BaseException) and not isinstance(answer, AiaasError):
            raise ConfigError(
                f"a model raises no {type(answer).__name__}", hint="Give an error of aiaas_sdk.errors, as models do"
            )
        error = answer if isinstance(answer, AiaasError) else None
        self._answers.append(_Answer({} if error else self._tensors(answer), error, after))
        return self

    def _tensors(self, answer: Any) -> dict[str, Tensor]:
        known = {spec.name: spec for spec in self._info.outputs}
        if not isinstance(answer, Mapping):
            if len(known) > 1:
                raise ConfigError(f"the model has the outputs {', '.join(known)}", hint="Give {NAME: array, ...}")
            answer = {next(iter(known), "output"): answer}
        if unknown := [name for name in answer if known and name not in known]:
            raise ConfigError(f"the model has no output {unknown[0]!r}; it has {', '.join(known)}")
        return {name: _tensor(name, value, known.get(name)) for name, value in answer.items()}

    def take(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> _Answer:
        """The next answer, for a call that is noted. UnsupportedOperationError where there is none."""
        with self._guard:
            asked = {name: Kind.numpy().give(tensor).copy() for name, tensor in inputs.items()}
            self.calls.append(ScriptedCall(asked, tuple(outputs)))
            if self._answers:
                return self._answers.popleft()
            error = self._overrun(Asked(self.address, "predict", inputs, {"outputs": list(outputs)} if outputs else {}))
            self.overruns.append(error)
        raise error

    def _overrun(self, asked: Asked) -> UnsupportedOperationError:
        said = len(self.calls) - len(self.overruns) - 1
        given = f"{said} answer{'' if said == 1 else 's'}"
        return UnsupportedOperationError(
            f"{self.address} was given {given}, and call {len(self.calls)} came: {asked}",
            hint="Give it another one: script.answer(...)",
        )


def _specs(signature: Signature | None) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, kind, tuple(shape)) for name, (kind, shape) in (signature or {}).items())


def _tensor(name: str, value: Any, spec: TensorSpec | None) -> Tensor:
    if spec is None:
        import numpy as np

        spec = TensorSpec(name, datatype_of(value), (-1,) * np.ndim(value))
    return take(copy.copy(value), spec, where="the scripted answer")


class ScriptedBackend(Backend):
    """Answers from a `Script`."""

    scheme = NAME
    options_taken: ClassVar[frozenset[str]] = frozenset()

    def prepare(self) -> None:
        script = _scripts.get(self.address.target)
        if script is None:
            raise AddressError(
                f"{self.address} is no script of this process, or nobody holds it any more",
                hint="Make one: aiaas_sdk.testing.Script(), or the fixture aiaas_scripted",
            )
        self._script = script

    def opening(self, call: Call) -> Flow[ModelInfo]:
        yield from ()
        return self._script.info

    def readiness(self, call: Call) -> Flow[bool]:
        yield from ()
        return True

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb != "predict":
            raise self.unsupported(call.verb)
        return self.predict(call, *arguments)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        answer = self._script.take(inputs, outputs)
        if answer.after:
            yield Sleep(answer.after)
        if answer.error is not None:
            raise copy.copy(answer.error)
        return {name: answer.tensors[name] for name in outputs or answer.tensors if name in answer.tensors}


@hookimpl
def aiaas_backend(scheme: str) -> type[ScriptedBackend]:
    return ScriptedBackend
