"""The plugins: which backend serves which scheme, and which observers are installed. All are found by entry point.

A backend is imported only when it is asked for.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any

import pluggy

from aiaas_sdk import hookspecs
from aiaas_sdk.errors import BackendNotInstalledError, PluginLoadError
from aiaas_sdk.records.model import BackendInfo

__all__ = ["GROUP", "OBSERVERS", "available_backends", "backend_class", "managed", "observers"]

GROUP = "aiaas_sdk.backends"
OBSERVERS = "aiaas_sdk.observers"
BUILT_IN = "aiaas-sdk"
_broken: dict[str, str] = {}
"""Why the last attempt to load a scheme failed; cleared when one succeeds."""


def _claims() -> Mapping[str, list[metadata.EntryPoint]]:
    return _read(_path())[0]


def observers() -> tuple[metadata.EntryPoint, ...]:
    """The installed observers; the same object as long as nothing was installed or removed. Imports none of them."""
    return _read(_path())[1]


def _path() -> tuple[tuple[str, int], ...]:
    return tuple((folder, _stamp(folder)) for folder in sys.path)


def _stamp(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(1)
def _read(
    path: tuple[tuple[str, int], ...],
) -> tuple[Mapping[str, list[metadata.EntryPoint]], tuple[metadata.EntryPoint, ...]]:
    """Read again only when the path or a folder of it has changed: reading costs 0.1 ms for each distribution."""
    found = metadata.entry_points()
    claims: dict[str, list[metadata.EntryPoint]] = {}
    for entry in found.select(group=GROUP):
        claims.setdefault(entry.name, []).append(entry)
    return claims, tuple(entry for entry in found.select(group=OBSERVERS) if not _missing(entry))


def available_backends() -> Mapping[str, BackendInfo]:
    """The installed backends by scheme. Imports none of them.

    `state` says whether one can be used: "ready", "missing extra: NAME" (its packages aren't installed), or
    "broken: why" where two distributions claim the scheme or an earlier `load` in this process failed.
    """
    return {scheme: _describe(scheme, entries) for scheme, entries in sorted(_claims().items())}


def _describe(scheme: str, entries: list[metadata.EntryPoint]) -> BackendInfo:
    state = "ready"
    if len(entries) > 1:
        state = f"broken: claimed by {_names(entries)}"
    elif missing := _missing(entries[0]):
        state = f"missing extra: {scheme} ({', '.join(missing)})"
    elif scheme in _broken:
        state = f"broken: {_broken[scheme]}"
    dist = entries[0].dist
    return BackendInfo(
        scheme=scheme,
        distribution=dist.name if dist else "unknown",
        version=dist.version if dist else "unknown",
        state=state,
    )


def _names(entries: list[metadata.EntryPoint]) -> str:
    return " and ".join(sorted(entry.dist.name if entry.dist else "unknown" for entry in entries))


def _missing(entry: metadata.EntryPoint) -> list[str]:
    """The packages of the distribution's extra of the scheme's name that aren't installed."""
    mark = (f"extra == '{entry.name}'", f'extra == "{entry.name}"')
    wanted = [r for r in (entry.dist.requires or [] if entry.dist else []) if r.endswith(mark)]
    names = [_project(requirement) for requirement in wanted]
    return [name for name in names if not _installed(name)]


def _project(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def backend_class(scheme: str, address: str) -> type[Any]:
    """Import the plugin that serves `scheme` and give its backend class.

    Raises:
        BackendNotInstalledError: nobody serves it, or the extra that it needs isn't installed.
        PluginLoadError: the plugin is there and can't be used; a later call tries again.
    """
    entries = _claims().get(scheme)
    if not entries:
        known = ", ".join(sorted(_claims())) or "none"
        raise BackendNotInstalledError(
            f"no installed backend serves {scheme!r}",
            address=address,
            hint=f"Installed are {known}; a plugin is often called aiaas-{scheme}: pip install aiaas-{scheme}",
        )
    if len(entries) > 1:
        raise PluginLoadError(
            f"two distributions claim the scheme {scheme!r}: {_names(entries)}",
            address=address,
            hint="Uninstall one of them",
        )
    if missing := _missing(entries[0]):
        dist = entries[0].dist.name if entries[0].dist else BUILT_IN
        raise BackendNotInstalledError(
            f"the backend {scheme!r} needs {', '.join(missing)}",
            address=address,
            hint=f'Install it: pip install "{dist}[{scheme}]"',
        )
    return _load(entries[0], address)


def _load(entry: metadata.EntryPoint, address: str) -> type[Any]:
    try:
        cls = _registered(entry.load(), entry.name)
    except (KeyboardInterrupt, MemoryError, PluginLoadError):
        raise
    except BaseException as error:  # an import may even call sys.exit
        dist = entry.dist.name if entry.dist else "unknown"
        _broken[entry.name] = f"{type(error).__name__}: {error}"[:200]
        raise PluginLoadError(
            f"the plugin for {entry.name!r} (distribution {dist}) can't be loaded: {_broken[entry.name]}",
            address=address,
            hint="Mend or uninstall it; other backends work on",
        ) from error
    _broken.pop(entry.name, None)
    return cls


def _registered(plugin: Any, scheme: str) -> type[Any]:
    """Each plugin has a manager of its own, so that one's hooks can't answer for another's scheme."""
    if inspect.isclass(plugin):
        raise TypeError(f"the entry point names the class {plugin.__name__}; it must name the plugin's module")
    cls = managed(plugin).aiaas_backend(scheme=scheme)
    if not inspect.isclass(cls):
        raise TypeError("its hook aiaas_backend gave no class")
    return cls


def managed(plugin: Any) -> Any:
    """The hooks of one plugin, by name, from a manager of its own.

    Raises:
        Exception: a hook of it isn't known, or takes something that isn't offered; the text names it.
    """
    manager = pluggy.PluginManager("aiaas_sdk")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    return manager.hook
