"""The hooks of plugins: of a backend (entry points of `aiaas_sdk.backends`), and of an observer (of
`aiaas_sdk.observers`, or handed to `aiaas_sdk.observe`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from aiaas_sdk.records.events import AttemptEvent, CallEvent

hookspec = pluggy.HookspecMarker("aiaas_sdk")
hookimpl = pluggy.HookimplMarker("aiaas_sdk")


@hookspec(firstresult=True)
def aiaas_backend(scheme: str) -> type[Any]:  # type: ignore[empty-body]
    """Give the class that serves `scheme`: a subclass of LocalBackend or RemoteBackend."""


# What follows is called in the thread or event loop of the call, which waits for it.
@hookspec
def aiaas_call_started(call: CallEvent) -> Mapping[str, str] | None:
    """The backend is about to be asked. Headers that this gives back go with each of the call's requests."""


@hookspec
def aiaas_attempt_finished(call: CallEvent, attempt: AttemptEvent) -> None:
    """One of its requests was answered, or failed; there may be several of a call, and none of a model here."""


@hookspec
def aiaas_call_finished(call: CallEvent, error: str | None) -> None:
    """It has an answer, or raised an error of this class: once for each call that started."""


@hookspec(firstresult=True)
def aiaas_observes() -> bool:  # type: ignore[empty-body]
    """Whether this observer wants the call that begins now. Asked before each call; without it, it wants all."""
