"""Servers of other protocols beside the HTTP one: for the same models, in the same event loop. Plugins bring them.

An entry point of the group `aiaas_sdk.servers`, named for its protocol, names a function
`(app, host, port, max_body) -> Beside`.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from aiaas_sdk.errors import BackendNotInstalledError, PluginLoadError

if TYPE_CHECKING:
    from aiaas_sdk.server.app import App

__all__ = ["GROUP", "Beside", "beside"]

GROUP = "aiaas_sdk.servers"


class Beside(Protocol):
    """Such a server."""

    async def start(self) -> None:
        """Listen and serve, in this event loop; a ConfigError where the port can't be listened on."""

    async def stop(self, seconds: float) -> None:
        """Take no further call, and let those that run go on for so long. May be called twice."""


def beside(protocol: str, app: App, host: str, port: int, max_body: int) -> Beside:
    """The server of a protocol for the models of `app`; `max_body` bounds a request in bytes.

    Raises:
        BackendNotInstalledError: no plugin brings it. PluginLoadError: it can't be loaded.
    """
    found = list(metadata.entry_points(group=GROUP, name=protocol))
    if not found:
        raise BackendNotInstalledError(
            f"no installed plugin serves {protocol}", hint=f"Install it: pip install aiaas-{protocol}"
        )
    try:
        made: Beside = found[0].load()(app, host, port, max_body)
    except Exception as error:
        raise PluginLoadError(f"the plugin that serves {protocol} can't be loaded: {error}") from error
    return made
