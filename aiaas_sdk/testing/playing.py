"""Answering models from a recording, whatever their addresses are."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from aiaas_sdk.backends.replay import ReplayBackend
from aiaas_sdk.engine import Engine, Serving
from aiaas_sdk.errors import AddressError
from aiaas_sdk.finding import check_options, find
from aiaas_sdk.recordings.calls import label
from aiaas_sdk.recordings.playback import Playback
from aiaas_sdk.records.secret import hide
from aiaas_sdk.seam import Make
from aiaas_sdk.settings import read as read_settings

__all__ = ["Player"]


class Player:
    """Steps in between models and their backends, and answers in the place of these. No backend is looked for."""

    def __init__(self, playback: Playback) -> None:
        self.playback = playback
        self._taken: list[tuple[weakref.ref[Engine], Serving]] = []

    def serve(self, where: Any, options: Any, make: Make) -> tuple[Any, Mapping[str, Any]]:
        hide(options)
        model = label(where)
        own = _options(where, options)
        backend = ReplayBackend.of(self.playback, model)
        backend.loaded()
        return backend, own

    def take(self, engine: Engine, where: Any) -> None:
        self._taken.append((weakref.ref(engine), engine.backend))
        stand_in: Any = ReplayBackend.of(self.playback, label(where))
        engine.backend = stand_in

    def leave(self) -> None:
        self.playback.end()
        for reference, backend in self._taken:
            if (engine := reference()) is not None:
                engine.backend = backend


def _options(where: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the model's calls; those of a name that is known only where it was recorded are not among them."""
    try:
        return find(where, options).options
    except AddressError:
        check_options(options)
        return {**read_settings().defaults[0], **options}
