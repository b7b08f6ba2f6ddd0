"""`replay:calls.jsonl` answers from a recording, without the model and without a network.

A recording of several models needs the option `model`: the address of the one that is meant, as the file has it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aiaas_sdk.address import Address
from aiaas_sdk.backends.base import Backend
from aiaas_sdk.errors import AddressError, ConfigError, ModelNotFoundError
from aiaas_sdk.flow import Emit, Flow, Run
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.recordings import failures
from aiaas_sdk.recordings.calls import REQUEST_ID, Asked, Outcome, Recorded
from aiaas_sdk.recordings.files import read
from aiaas_sdk.recordings.playback import Playback
from aiaas_sdk.recordings.questions import asked
from aiaas_sdk.recordings.tensors import copied
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor


class ReplayBackend(Backend):
    """Answers calls with what came of equal ones when they were recorded.

    What wasn't recorded raises UnsupportedOperationError, which says how the nearest recorded call differs.
    """

    scheme = "replay"
    options_taken: ClassVar[frozenset[str]] = frozenset(("model",))

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._playback: Playback | None = None
        self._model = ""

    @classmethod
    def of(cls, playback: Playback, model: str) -> ReplayBackend:
        """One model of a recording that is played already; `model` is its address there."""
        made = cls(Address("replay", "", None, model), {})
        made._playback, made._model = playback, model
        return made

    def prepare(self) -> None:
        if not self.address.target or self.address.version:
            raise AddressError(f"{self.address} names no file", hint="Write replay:PATH; a recording has no versions")
        if not Path(self.address.target).is_file():
            raise ModelNotFoundError(
                f"there is no recording {self.address.target}",
                hint="`aiaas_sdk.testing.recording` writes one, and so does `pytest --aiaas=record`",
            )

    def loaded(self) -> None:
        """Raise what loading the model raised, where that was recorded."""
        question = Asked(self._model, "load")
        if self._playback is not None and self._playback.holds(question):
            self._played(Call("load"), question)

    # ------------------------------------------------------------ flows
    def opening(self, call: Call) -> Flow[ModelInfo]:
        if self._playback is None:
            recorded = yield Run(lambda: read(Path(self.address.target)))
            playback = Playback(recorded, self.address.target)
            self._model = self._meant(playback.addresses)
            self._playback = playback
        return self._played(call, Asked(self._model, "open"))  # type: ignore[no-any-return]

    def _meant(self, models: Sequence[str]) -> str:
        wanted = self.options.get("model")
        if wanted in models or (wanted is None and len(models) == 1):
            return str(wanted or models[0])
        known = ", ".join(models) or "none"
        if wanted is None:
            raise ConfigError(f"{self.address} has calls of several models or of none: {known}", hint="Give model=")
        raise ModelNotFoundError(f"{self.address} has no calls of {wanted!r}; it has those of {known}")

    def readiness(self, call: Call) -> Flow[bool]:
        """As it was recorded; a recording in which nobody asked is ready, as it can answer."""
        yield from ()
        question = Asked(self._model, "ready")
        assert self._playback is not None  # the model was opened
        return not self._playback.holds(question) or self._played(call, question)

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        return getattr(self, call.verb)(call, *arguments)  # type: ignore[no-any-return]

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        yield from ()
        answer = self._played(call, asked(self._model, "predict", inputs, outputs))
        return {name: copied(tensor) for name, tensor in answer.items()}  # the caller may write into them

    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        yield from ()
        spoken: Spoken = self._played(call, asked(self._model, "generate", chat))
        return copy.deepcopy(spoken)

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        recorded = self._recorded(call, asked(self._model, "stream", chat))
        for delta in copy.deepcopy(recorded.outcome.deltas):
            yield Emit(delta)
        whole: Spoken | None = _outcome_of(recorded)
        if whole is None:
            assert self._playback is not None  # the model was opened
            raise self._playback.left(recorded)
        return copy.deepcopy(whole)

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        yield from ()
        embedded: Embedded = self._played(call, asked(self._model, "embed", texts, dimensions))
        return copy.deepcopy(embedded)

    def _played(self, call: Call, question: Asked) -> Any:
        return _outcome_of(self._recorded(call, question))

    def _recorded(self, call: Call, question: Asked) -> Recorded:
        assert self._playback is not None  # the model was opened
        recorded = self._playback.answer(question)
        _tell(call, recorded.outcome)
        return recorded


def _outcome_of(recorded: Recorded) -> Any:
    error = recorded.outcome.error
    if error is not None:
        raise failures.decode(failures.encode(error), "")  # each call has an error of its own
    return recorded.outcome.answer


def _tell(call: Call, outcome: Outcome) -> None:
    for name, value in outcome.learnt.items():
        setattr(call, name, value)
    if outcome.request_id:
        call.request_id = REQUEST_ID


@hookimpl
def aiaas_backend(scheme: str) -> type[ReplayBackend]:
    return ReplayBackend
