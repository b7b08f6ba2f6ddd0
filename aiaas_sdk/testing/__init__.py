"""For tests of applications that use models; shipped in the wheel, and loaded only by who uses it.

    recording    record the calls of models into a file, and replay them from it, offline
    Script       a model that answers what the test tells it to
    no_network   whatever connects to another machine fails at once
    FaultServer  an endpoint that is wrong on purpose

`plugin` brings them to pytest: the option `--aiaas=record`, and the fixtures `aiaas_recording`, `aiaas_scripted`,
`aiaas_faults` and `aiaas_no_network`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiaas_sdk.testing.faults import FaultServer as FaultServer
    from aiaas_sdk.testing.modes import recording as recording
    from aiaas_sdk.testing.network import no_network as no_network
    from aiaas_sdk.testing.scripted import Script as Script

_HOMES = {"FaultServer": "faults", "Script": "scripted", "no_network": "network", "recording": "modes"}
__all__ = ["FaultServer", "Script", "no_network", "recording"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin of this package in every run, so that nothing is imported before it is used
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
