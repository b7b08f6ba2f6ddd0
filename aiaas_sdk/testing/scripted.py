"""A model that answers what a test tells it to.

    script = Script()
    script.answer([[0.1, 0.9]])
    script.answer(aiaas.RateLimitedError("slow down", retry_after=2))

    model = aiaas.load(script.address)         # a Model like any other; load_async gives an AsyncModel
    model.predict(images)                      # [[0.1, 0.9]]
    script.calls[0].inputs                     # what it was asked

    script.say("Hello!")                       # to generate
    script.stream(["Hel", "lo!"])              # to stream
    script.embed([[0.1, 0.9]])                 # to embed

In pytest the fixture `aiaas_scripted` is one. To stand in for a name that the application loads, set the name's
variable: `monkeypatch.setenv("AIAAS_MODEL_DIGITS", script.address)`.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiaas_sdk.backends.base import Backend
from aiaas_sdk.errors import AddressError, AiaasError, UnsupportedOperationError
from aiaas_sdk.flow import Emit, Flow, Sleep
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.recordings.questions import asked
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.language import Delta, ToolCall
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Kind, Tensor
from aiaas_sdk.testing import scripted_steps as steps
from aiaas_sdk.testing.scripted_steps import Step

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
        verb: "predict", "generate", "stream" or "embed".
        inputs: of predict: numpy arrays by name, copied.
        outputs: of predict: those that were asked for; empty for all.
        chat: of generate and stream: `.messages`, `.sampling`, `.tools` and `.schema`; else None.
        texts: of embed.
        dimensions: of embed, where they were asked for.
    """

    verb: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    chat: Chat | None = None
    texts: tuple[str, ...] = ()
    dimensions: int | None = None


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
        self._steps: deque[Step] = deque()
        self._guard = threading.Lock()
        self.address = f"{NAME}:{next(_numbers)}"
        """What `load` takes."""
        self.signature(inputs=inputs, outputs=outputs, labels=labels)
        _scripts[self.address.removeprefix(f"{NAME}:")] = self

    def signature(
        self, *, inputs: Signature | None = None, outputs: Signature | None = None, labels: Sequence[str] | None = None
    ) -> Script:
        """Say what `predict` takes and gives, before the model is opened; see the arguments of the class."""
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
        return len(self._steps)

    # ------------------------------------------------------------ what it says
    def answer(self, answer: Any, *, after: float = 0.0) -> Script:
        """Add the answer to one call of `predict`, or an error for one call of any verb.

        Args:
            answer: arrays by output name; a bare array for the only output; an AiaasError, which is raised.
            after: seconds that the answer takes. Past the call's deadline, the call fails without waiting for it.

        Raises:
            InputError: it doesn't fit the signature. ConfigError: it is no possible answer.
        """
        if isinstance(answer, BaseException):
            return self._add(Step(None, after, error=steps.checked_error(answer)))
        return self._add(Step("predict", after, steps.tensors(answer, self._info.outputs)))

    def say(
        self,
        text: str = "",
        *,
        reasoning: str | None = None,
        tool_calls: Sequence[ToolCall] = (),
        finish_reason: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        after: float = 0.0,
    ) -> Script:
        """Add the answer to one call of `generate`. With `output=` the text is JSON, as a real model's.

        Args:
            reasoning: what it thought before.
            tool_calls: what it asks for.
            finish_reason: None for "tool_calls" where it asks for some, else "stop".
            input_tokens, output_tokens: what `usage` says; None is unknown.
            after: as for `answer`.

        Raises:
            ConfigError: it is no possible answer.
        """
        spoken = steps.spoken(
            text,
            reasoning=reasoning,
            tool_calls=tool_calls,
            finish_reason=finish_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        return self._add(Step("generate", after, spoken))

    def stream(
        self,
        pieces: Sequence[str | Delta],
        *,
        then: AiaasError | None = None,
        finish_reason: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        after: float = 0.0,
    ) -> Script:
        """Add the answer to one call of `stream`.

        Args:
            pieces: texts, or deltas where there is reasoning or a tool call in it.
            then: what ends it early. A StreamInterruptedError without `partial` is given the texts.
            finish_reason, input_tokens, output_tokens: of the whole, as for `say`.
            after: seconds before the first piece.

        Raises:
            ConfigError: it is no possible answer.
        """
        deltas = steps.deltas_of(pieces)
        if then is not None:
            return self._add(Step("stream", after, deltas=deltas, error=steps.cut(steps.checked_error(then), deltas)))
        whole = steps.spoken(
            "".join(delta.text for delta in deltas),
            reasoning="".join(delta.reasoning for delta in deltas) or None,
            tool_calls=[call for delta in deltas for call in delta.tool_calls],
            finish_reason=finish_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        return self._add(Step("stream", after, whole, deltas))

    def embed(self, vectors: Any, *, after: float = 0.0) -> Script:
        """Add the answer to one call of `embed`.

        Args:
            vectors: numbers of shape (texts, dimensions); they are given as float32.
            after: as for `answer`.

        Raises:
            InputError: they are no such numbers.
        """
        return self._add(Step("embed", after, steps.embedded(vectors)))

    def _add(self, step: Step) -> Script:
        self._steps.append(step)
        return self

    # ------------------------------------------------------------ what it is asked
    def take(self, verb: str, *arguments: Any) -> Step:
        """The answer to a call, which is noted. UnsupportedOperationError where there is none, or another's is next."""
        with self._guard:
            self.calls.append(_NOTES[verb](verb, *arguments))
            if self._steps and self._steps[0].verb in (None, verb):
                return self._steps.popleft()
            error = self._overrun(verb, *arguments)
            self.overruns.append(error)
        raise error

    def _overrun(self, verb: str, *arguments: Any) -> UnsupportedOperationError:
        came = f"call {len(self.calls)} came: {asked(self.address, verb, *arguments)}"
        if self._steps:
            return UnsupportedOperationError(
                f"{self.address} would answer {self._steps[0].verb} next, and {came}",
                hint="Give the answers in the order of the calls",
            )
        said = len(self.calls) - len(self.overruns) - 1
        given = f"{said} answer{'' if said == 1 else 's'}"
        return UnsupportedOperationError(
            f"{self.address} was given {given}, and {came}", hint=f"Give it another one: script.{_SAYING[verb]}(...)"
        )


_SAYING = {"predict": "answer", "generate": "say", "stream": "stream", "embed": "embed"}
"""For each verb the method that adds an answer."""


def _predict_note(verb: str, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> ScriptedCall:
    arrays = {name: Kind.numpy().give(tensor).copy() for name, tensor in inputs.items()}
    return ScriptedCall(verb, arrays, tuple(outputs))


def _chat_note(verb: str, chat: Chat) -> ScriptedCall:
    return ScriptedCall(verb, chat=chat)


def _embed_note(verb: str, texts: Sequence[str], dimensions: int | None) -> ScriptedCall:
    return ScriptedCall(verb, texts=tuple(texts), dimensions=dimensions)


_NOTES: Mapping[str, Callable[..., ScriptedCall]] = {
    "predict": _predict_note,
    "generate": _chat_note,
    "stream": _chat_note,
    "embed": _embed_note,
}


def _specs(signature: Signature | None) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, kind, tuple(shape)) for name, (kind, shape) in (signature or {}).items())


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
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        return getattr(self, call.verb)(call, *arguments)  # type: ignore[no-any-return]

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        step = yield from self._step(call, inputs, outputs)
        found = step.outcome()
        return {name: found[name] for name in outputs or found if name in found}

    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        step = yield from self._step(call, chat)
        return step.outcome()  # type: ignore[no-any-return]

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        step = yield from self._step(call, chat)
        for delta in step.deltas:
            yield Emit(delta)
        return step.outcome()  # type: ignore[no-any-return]

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        step = yield from self._step(call, texts, dimensions)
        return step.outcome()  # type: ignore[no-any-return]

    def _step(self, call: Call, *arguments: Any) -> Flow[Step]:
        step = self._script.take(call.verb, *arguments)
        if step.after:
            yield Sleep(step.after)
        return step


@hookimpl
def aiaas_backend(scheme: str) -> type[ScriptedBackend]:
    return ScriptedBackend
