"""`replay:calls.jsonl` answers from a recording, without the model and without a network.

A recording of several models needs the option `model`: the address of the one that is meant, as the file has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aiaas_sdk.address import Address
from aiaas_sdk.backends.base import Backend
from aiaas_sdk.errors import AddressError, ConfigError, ModelNotFoundError
from aiaas_sdk.flow import Flow, Run
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.recordings import failures
from aiaas_sdk.recordings.calls import REQUEST_ID, Asked, Outcome
from aiaas_sdk.recordings.files import read
from aiaas_sdk.recordings.playback import Playback
from aiaas_sdk.recordings.tensors import copied
from aiaas_sdk.records.call import Call
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
        asked = Asked(self._model, "load")
        if self._playback is not None and self._playback.holds(asked):
            self._played(Call("load"), asked)

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
        asked = Asked(self._model, "ready")
        assert self._playback is not None  # the model was opened
        return not self._playback.holds(asked) or self._played(call, asked)

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb != "predict":
            raise self.unsupported(call.verb)
        return self.predict(call, *arguments)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        yield from ()
        options = {"outputs": list(outputs)} if outputs else {}
        answer = self._played(call, Asked(self._model, "predict", inputs, options))
        return {name: copied(tensor) for name, tensor in answer.items()}  # the caller may write into them

    def _played(self, call: Call, asked: Asked) -> Any:
        assert self._playback is not None  # the model was opened
        outcome = self._playback.answer(asked).outcome
        _tell(call, outcome)
        if outcome.error is not None:
            raise failures.decode(failures.encode(outcome.error), "")  # each call has an error of its own
        return outcome.answer


def _tell(call: Call, outcome: Outcome) -> None:
    for name, value in outcome.learnt.items():
        setattr(call, name, value)
    if outcome.request_id:
        call.request_id = REQUEST_ID


@hookimpl
def aiaas_backend(scheme: str) -> type[ReplayBackend]:
    return ReplayBackend
