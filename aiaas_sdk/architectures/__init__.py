"""Architectures by name: what a bundle may name, since it can't name code to import.

A name comes from an entry point of the group `aiaas_sdk.architectures`, which names the class or a module with the
hook `aiaas_architecture`, or from the decorator `architecture` in a
module that the user imported. A class may have a class method `configure(inputs, labels)` that gives its arguments
for a signature; `create` asks it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar

from aiaas_sdk import registry
from aiaas_sdk.errors import ConfigError, PluginLoadError, UnsafeBundleError

__all__ = ["GROUP", "architecture", "class_of", "name_of", "names"]

GROUP = "aiaas_sdk.architectures"
T = TypeVar("T", bound=type[Any])
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_classes: dict[str, type[Any]] = {}


def architecture(name: str) -> Callable[[T], T]:
    """Register a `torch.nn.Module` class under a name, so that bundles may name it.

    Raises:
        ConfigError: the name isn't lower case letters, digits, - and _, or another class has it.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} is no name for an architecture", hint="Lower case letters, digits, - and _")

    def register(cls: T) -> T:
        known, own = _classes.get(name), f"{cls.__module__}:{cls.__qualname__}"
        claimed = f"{known.__module__}:{known.__qualname__}" if known else _claim(name)
        if claimed not in (None, own):
            raise ConfigError(f"the architecture {name!r} is registered already: {claimed}")
        _classes[name] = cls
        return cls

    return register


def names() -> list[str]:
    """The names that are known, in order. Imports nothing."""
    return sorted({*_classes, *_entries()})


def class_of(name: str) -> type[Any]:
    """The class behind a name.

    Raises:
        UnsafeBundleError: nobody registered it. PluginLoadError: who did can't be imported.
    """
    if name not in _classes:
        _classes[name] = _load(name)
    return _classes[name]


def name_of(cls: type[Any]) -> str | None:
    """The name under which a class is registered, or None."""
    return next((name for name, known in _classes.items() if known is cls), None)


def _entries() -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def _claim(name: str) -> str | None:
    entry = _entries().get(name)
    return entry.value if entry else None


def _load(name: str) -> type[Any]:
    entry = _entries().get(name)
    if entry is None:
        raise UnsafeBundleError(
            f"nobody registered an architecture {name!r}; known are {', '.join(names())}",
            hint="Import the module that registers it first (aiaas serve --import MODULE), or hand the class to "
            "load(architecture=...)",
        )
    try:
        cls = entry.load()
        if inspect.ismodule(cls):
            cls = registry.offered(cls, "aiaas_architecture", GROUP, name=name)
    except (Exception, SystemExit) as error:
        where = entry.dist.name if entry.dist else "unknown"
        raise PluginLoadError(
            f"the architecture {name!r} (distribution {where}) can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(cls, type):
        raise PluginLoadError(f"the entry point of the architecture {name!r} names no class")
    return cls
