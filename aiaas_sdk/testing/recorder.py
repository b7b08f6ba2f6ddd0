"""Noting what models are asked and what they answer."""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiaas_sdk.backends.base import Backend
from aiaas_sdk.engine import Engine, Serving
from aiaas_sdk.errors import AiaasError, UnsupportedOperationError
from aiaas_sdk.flow import Flow
from aiaas_sdk.recordings import answers, speech
from aiaas_sdk.recordings.answers import VERBS
from aiaas_sdk.recordings.calls import Asked, Outcome, Recorded, label, learnt
from aiaas_sdk.recordings.files import write
from aiaas_sdk.recordings.playback import BEFORE
from aiaas_sdk.recordings.questions import asked
from aiaas_sdk.recordings.tensors import copied
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.secret import hide
from aiaas_sdk.seam import Make
from aiaas_sdk.tensors import Tensor, holds
from aiaas_sdk.testing.hearing import Heard

__all__ = ["Recorder"]


class Recorder:
    """Steps in between models and their backends, and notes every call."""

    def __init__(self) -> None:
        self._calls: dict[int, Recorded] = {}
        self._numbers = itertools.count()
        self._guard = threading.RLock()  # a stream that is dropped is noted by its finaliser, whenever that runs
        self._opened: set[str] = set()
        self._taken: list[tuple[weakref.ref[Engine], Serving]] = []
        self._over = False

    # ------------------------------------------------------------ stepping in
    def serve(self, where: Any, options: Any, make: Make) -> tuple[Any, Mapping[str, Any]]:
        hide(options)
        asked = Asked(label(where), "load")
        number = self.number()
        try:
            serving, own = make(where, options)
        except AiaasError as error:
            self.note(number, asked, Outcome(error=error))
            raise
        self.note(number, asked, Outcome())
        return _Recorded(self, serving, asked.address, None), own

    def take(self, engine: Engine, where: Any) -> None:
        self._taken.append((weakref.ref(engine), engine.backend))
        stand_in: Any = _Recorded(self, engine.backend, label(where), engine.info)
        engine.backend = stand_in

    def leave(self) -> None:
        self._over = True
        for reference, backend in self._taken:
            if (engine := reference()) is not None:
                engine.backend = backend

    # ------------------------------------------------------------ noting
    def number(self) -> int:
        """For a call that begins now: its place among the others."""
        return next(self._numbers)

    def note(self, number: int, asked: Asked, outcome: Outcome) -> None:
        """What came of the call of that number. Nothing is noted any more where recording is over."""
        with self._guard:
            if not self._over:
                self._calls[number] = Recorded(asked, outcome)
                if asked.verb == "open" and outcome.error is None:
                    self._opened.add(asked.address)

    def note_opened(self, address: str, info: ModelInfo | None) -> None:
        """A model that was open before: the recording has to say what it is, or it couldn't be played alone."""
        if info is not None and address not in self._opened:
            self.note(self.number(), Asked(address, "open"), Outcome(info))

    def save(self, path: Path) -> None:
        """Write the calls, in the order in which they began."""
        write(path, [call for _, call in sorted(self._calls.items())])


class _Recorded(Backend):
    """A backend whose calls are noted. What it answers is what the inner one does."""

    def __init__(self, recorder: Recorder, inner: Serving, name: str, info: ModelInfo | None) -> None:
        super().__init__(inner.address, {})
        self._recorder, self._inner, self._name, self._info = recorder, inner, name, info
        self.scheme = inner.scheme
        self.parallel = inner.parallel  # type: ignore[misc]  # as the inner one

    @property
    def known(self) -> ModelInfo | None:  # the inner one's
        return self._inner.known

    @known.setter
    def known(self, info: ModelInfo | None) -> None:
        self._inner.known = info

    def opening(self, call: Call) -> Flow[ModelInfo]:
        info = yield from self._noted(call, Asked(self._name, "open"), self._inner.opening, call)
        return info  # type: ignore[no-any-return]

    def readiness(self, call: Call) -> Flow[bool]:
        self._recorder.note_opened(self._name, self._info)
        ready = yield from self._noted(call, Asked(self._name, "ready"), self._inner.readiness, call)
        return ready  # type: ignore[no-any-return]

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb not in VERBS:
            raise UnsupportedOperationError(f"a call of {call.verb} can't be recorded in this version")
        self._recorder.note_opened(self._name, self._info)
        return self._noted(call, asked(self._name, call.verb, *arguments), self._inner.start, call, *arguments)

    def unsupported(self, verb: str) -> Any:
        return self._inner.unsupported(verb)

    def close(self) -> None:
        self._inner.close()

    def _noted(self, call: Call, asked: Asked, work: Any, *arguments: Any) -> Flow[Any]:
        number, model, heard = self._recorder.number(), call.model, Heard()
        try:
            flow = work(*arguments)
            answer = yield from heard.through(flow) if asked.verb == "stream" else flow
        except AiaasError as error:
            self._recorder.note(number, asked, self._outcome(call, model, heard, error=self._kept(error)))
            raise
        except GeneratorExit:
            if heard.left:
                self._recorder.note(number, asked, self._outcome(call, model, heard))
            raise
        if asked.verb in BEFORE:
            self._recorder.note(number, asked, Outcome(answer))
        elif asked.verb != "predict" or _sound(answer):  # else what comes next refuses it
            self._recorder.note(number, asked, self._outcome(call, model, heard, _copied(asked.verb, answer)))
        return answer

    def _outcome(
        self, call: Call, model: str, heard: Heard, answer: Any = None, error: AiaasError | None = None
    ) -> Outcome:
        """What came of a call; `model` is what it was called before the backend was asked."""
        known = learnt(call)
        if call.model == model:
            known.pop("model", None)
        if error is None:
            known = {"backend": self.scheme, **known}
        deltas = speech.decode_deltas(speech.encode_deltas(heard.deltas), "a stream")
        return Outcome(answer, error, known, call.request_id is not None, deltas)

    def _kept(self, error: AiaasError) -> AiaasError:
        """Without its traceback, as it is now, and with the address, which a replay doesn't know."""
        return copy.copy(error).locate(address=str(self._inner.address))


def _sound(answer: Any) -> bool:
    return isinstance(answer, Mapping) and all(type(tensor) is Tensor and holds(tensor) for tensor in answer.values())


def _copied(verb: str, answer: Any) -> Any:
    """The answer as it will be read again: the caller may change his own."""
    if verb == "predict":
        return {name: copied(tensor) for name, tensor in answer.items()}
    return answers.decode(verb, answers.encode(verb, answer), "the answer")
