"""The hooks of a backend plugin. A plugin is a module that an entry point of `aiaas_sdk.backends` names."""

from __future__ import annotations

from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("aiaas_sdk")
hookimpl = pluggy.HookimplMarker("aiaas_sdk")


@hookspec(firstresult=True)
def aiaas_backend(scheme: str) -> type[Any]:  # type: ignore[empty-body]
    """Give the class that serves `scheme`: a subclass of LocalBackend or RemoteBackend."""
