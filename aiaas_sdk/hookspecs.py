"""The hooks of plugins. A plugin is a module that an entry point names, with functions that `hookimpl` marks.

| group of the entry point | its name | hook |
|---|---|---|
| aiaas_sdk.backends | a scheme | aiaas_backend |
| aiaas_sdk.policies | what the option `policies` calls it | aiaas_policy |
| aiaas_sdk.architectures | what a bundle calls it | aiaas_architecture |
| aiaas_sdk.commands | a command of `aiaas` | aiaas_command |
| aiaas_sdk.observers | any | aiaas_call_started, aiaas_attempt_finished, aiaas_call_finished, aiaas_observes |

All but observers are imported when somebody asks for that name, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from aiaas_sdk.records.call import Around
    from aiaas_sdk.records.events import AttemptEvent, CallEvent

API = 1
"""The version of what plugins are written against. A module that says `aiaas_api = 2` is refused here."""

hookspec = pluggy.HookspecMarker("aiaas_sdk")
hookimpl = pluggy.HookimplMarker("aiaas_sdk")


@hookspec(firstresult=True)
def aiaas_backend(scheme: str) -> type[Any]:  # type: ignore[empty-body]
    """Give the class that serves `scheme`: a subclass of LocalBackend or RemoteBackend."""


@hookspec(firstresult=True)
def aiaas_policy(name: str) -> Around:  # type: ignore[empty-body]
    """Give what wraps each request of a call to an endpoint: `(call, request, proceed)` -> the flow of the reply."""


@hookspec(firstresult=True)
def aiaas_architecture(name: str) -> type[Any]:  # type: ignore[empty-body]
    """Give the `torch.nn.Module` class that bundles call `name`."""


@hookspec(firstresult=True)
def aiaas_command(name: str) -> Callable[..., None]:  # type: ignore[empty-body]
    """Give the function of `aiaas name`: its parameters are typed as Typer's are, its docstring is the help."""


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
