"""The plugins: who serves which scheme, and the other kinds that `hookspecs` tells of. All are found by entry point.

Each is imported only when somebody asks for it, so that a broken one harms nobody else.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from typing import Any

import pluggy

from aiaas_sdk import hookspecs
from aiaas_sdk._version import __version__
from aiaas_sdk.articles import kind_of, with_article
from aiaas_sdk.errors import BackendNotInstalledError, ConfigError, PluginLoadError
from aiaas_sdk.records.model import BackendInfo
from aiaas_sdk.signatures import check_backend

__all__ = [
    "COMMANDS",
    "GROUP",
    "KNOWN",
    "OBSERVERS",
    "POLICIES",
    "at_hand",
    "available_backends",
    "backend_class",
    "command",
    "commands",
    "managed",
    "observers",
    "offered",
    "policy",
]

GROUP = "aiaas_sdk.backends"
OBSERVERS = "aiaas_sdk.observers"
POLICIES = "aiaas_sdk.policies"
COMMANDS = "aiaas_sdk.commands"
BUILT_IN = "aiaas-sdk"
KNOWN: Mapping[str, str] = {
    "torch": "aiaas-sdk[torch]",
    "onnx": "aiaas-onnx",
    "grpc": "aiaas-grpc",
    "hf": "aiaas-transformers",
    "huggingface": "aiaas-huggingface",
    "mlflow": "aiaas-mlflow",
}
"""Schemes that are known, and what to install for each; docs/backends.md has the same table."""

Claims = Mapping[str, list[metadata.EntryPoint]]
"""Who wants to be called by a name."""
_broken: dict[metadata.EntryPoint, str] = {}
"""Why the last attempt to load a backend failed; cleared when one succeeds."""
_given: dict[tuple[str, str], tuple[Any, Any]] = {}
"""By group and name: a plugin that was loaded, and what its hook gave."""


# ---------------------------------------------------------------- reading entry points
def _claims(group: str = GROUP) -> Claims:
    return _read(_path())[0].get(group, {})


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
def _read(path: tuple[tuple[str, int], ...]) -> tuple[Mapping[str, Claims], tuple[metadata.EntryPoint, ...]]:
    """Read again only when the path or a folder of it has changed: reading costs 0.1 ms for each distribution."""
    groups: dict[str, dict[str, list[metadata.EntryPoint]]] = {GROUP: {}, OBSERVERS: {}, POLICIES: {}, COMMANDS: {}}
    for group, entry in _entry_points(groups):
        groups[group].setdefault(entry.name, []).append(entry)
    observers = [entry for entries in groups[OBSERVERS].values() for entry in entries]
    return groups, tuple(entry for entry in observers if not _missing(entry))


def _entry_points(groups: Collection[str]) -> list[tuple[str, metadata.EntryPoint]]:
    """What is installed of these groups. A distribution whose entry points can't be read has none."""
    try:
        whole = metadata.entry_points()
        return [(group, entry) for group in groups for entry in whole.select(group=group)]
    except Exception:  # one that is damaged spoils the reading of all
        found: dict[str, metadata.EntryPoints] = {}
        for distribution in metadata.distributions():
            with suppress(Exception):
                found.setdefault(distribution.name, distribution.entry_points)
        return [(group, entry) for own in found.values() for group in groups for entry in own.select(group=group)]


# ---------------------------------------------------------------- saying what is there
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
    elif entries[0] in _broken:
        state = f"broken: {_broken[entries[0]]}"
    return BackendInfo(scheme=scheme, distribution=_distribution(entries[0]), version=_version(entries[0]), state=state)


def _names(entries: list[metadata.EntryPoint]) -> str:
    return " and ".join(sorted(_distribution(entry) for entry in entries))


def _distribution(entry: metadata.EntryPoint) -> str:
    return (entry.dist.name if entry.dist else None) or "unknown"


def _version(entry: metadata.EntryPoint) -> str:
    return (entry.dist.version if entry.dist else None) or "unknown"


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


# ---------------------------------------------------------------- backends
def backend_class(scheme: str, address: str) -> type[Any]:
    """Import the plugin that serves `scheme` and give its backend class.

    Raises:
        BackendNotInstalledError: nobody serves it, or the extra that it needs isn't installed.
        PluginLoadError: the plugin is there and can't be used; a later call tries again.
    """
    entry = _serving(scheme, address)
    try:
        cls: type[Any] = _asked(entry, "aiaas_backend", address, scheme=scheme)
    except PluginLoadError as error:
        _broken[entry] = error.message.partition(" can't be loaded: ")[2][:200]
        raise
    _broken.pop(entry, None)
    return cls


def at_hand(scheme: str) -> bool:
    """Whether asking for a scheme takes no time: its plugin is one of ours, or is imported, or there is none."""
    entries = _claims().get(scheme, [])
    return len(entries) != 1 or _distribution(entries[0]) == BUILT_IN or _module(entries[0]) in sys.modules


def _module(entry: metadata.EntryPoint) -> str:
    return entry.value.partition(":")[0].strip()


def _serving(scheme: str, address: str) -> metadata.EntryPoint:
    entries = _claims().get(scheme)
    if not entries:
        installed = ", ".join(sorted(_claims())) or "none"
        raise BackendNotInstalledError(
            f"no installed backend serves {scheme!r}",
            address=address,
            hint=f"{_where_to_get(scheme)} Installed are {installed}",
        )
    if len(entries) > 1:
        raise _contended("scheme", scheme, entries, address)
    if missing := _missing(entries[0]):
        raise BackendNotInstalledError(
            f"the backend {scheme!r} needs {', '.join(missing)}",
            address=address,
            hint=f'Install it: pip install "{_distribution(entries[0])}[{scheme}]"',
        )
    return entries[0]


def _where_to_get(scheme: str) -> str:
    if known := KNOWN.get(scheme):
        return f'Install it: pip install "{known}".'
    near = difflib.get_close_matches(scheme, ["http", "https", *KNOWN, *_claims()], 1)
    return f"Did you mean {near[0]}:?" if near else f"A plugin is often called aiaas-{scheme}."


def _contended(kind: str, name: str, entries: list[metadata.EntryPoint], address: str | None) -> PluginLoadError:
    return PluginLoadError(
        f"two distributions claim the {kind} {name!r}: {_names(entries)}", address=address, hint="Uninstall one of them"
    )


# ---------------------------------------------------------------- other kinds
def policy(name: str) -> Any:
    """The policy that a plugin calls so.

    Raises:
        ConfigError: none does. PluginLoadError: one does, and can't be used.
    """
    return _asked(_only(POLICIES, "policy", name), "aiaas_policy", name=name)


def commands() -> Mapping[str, str]:
    """The commands that plugins bring, each with who brings it. Imports none of them."""
    return {name: _names(entries) for name, entries in sorted(_claims(COMMANDS).items())}


def command(name: str) -> Any:
    """The function of a command that a plugin brings; raises as `policy`."""
    return _asked(_only(COMMANDS, "command", name), "aiaas_command", name=name)


def _only(group: str, kind: str, name: str) -> metadata.EntryPoint:
    entries = _claims(group).get(name, [])
    if len(entries) == 1:
        return entries[0]
    if entries:
        raise _contended(kind, name, entries, None)
    installed = ", ".join(sorted(_claims(group))) or "none"
    raise ConfigError(f"no installed plugin has {with_article(kind)} {name!r}", hint=f"Installed are {installed}")


# ---------------------------------------------------------------- loading
def _asked(entry: metadata.EntryPoint, hook: str, address: str | None = None, **facts: str) -> Any:
    """Import the plugin, and give what its hook gives; PluginLoadError says whose it is and what is wrong."""
    try:
        return offered(entry.load(), hook, entry.group, **facts)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # an import may even call sys.exit
        kind = hook.removeprefix("aiaas_")
        raise PluginLoadError(
            f"the {kind} plugin {entry.name!r} (distribution {_distribution(entry)} {_version(entry)}) "
            f"can't be loaded: {type(error).__name__}: {error}"[:500],
            address=address,
            hint=_cure(entry),
        ) from error


def _cure(entry: metadata.EntryPoint) -> str:
    """What to do about a plugin that can't be loaded: one that is written for another version says so itself."""
    asks = [wanted for wanted in (entry.dist.requires or [] if entry.dist else []) if _project(wanted) == BUILT_IN]
    versions = f" (it asks for {asks[0]}; this is {BUILT_IN} {__version__})" if asks else ""
    return f"Mend, upgrade or uninstall it{versions}; all others work on"


def offered(plugin: Any, hook: str, group: str, **facts: str) -> Any:
    """What the hook of a plugin gives, checked. Asked again for the same, it gives the same.

    Raises:
        Exception: it can't be used; the text says why.
    """
    (name,) = facts.values()
    known = _given.get((group, name))
    if known is not None and known[0] is plugin:
        return known[1]
    hooks = getattr(managed(plugin), hook)
    if not hooks.get_hookimpls():
        raise TypeError(f"it has no hook {hook}: write that function, and mark it with aiaas_sdk.hookspecs.hookimpl")
    given = hooks(**facts)
    if hook == "aiaas_backend":
        check_backend(given)
    elif hook == "aiaas_architecture":
        _check_class(given, hook)
    elif not callable(given):
        raise TypeError(f"its hook {hook} gave {_called(given)}, which can't be called")
    _given[group, name] = plugin, given
    return given


def _check_class(given: Any, hook: str) -> None:
    if not inspect.isclass(given):
        raise TypeError(f"its hook {hook} gave {_called(given)}, which is no class")


def _called(value: Any) -> str:
    return "nothing" if value is None else kind_of(value)


def managed(plugin: Any) -> Any:
    """The hooks of one plugin, by name, from a manager of its own: one's hooks can't answer for another's name.

    Raises:
        Exception: a hook of it isn't known, or takes something that isn't offered; the text names it.
    """
    if inspect.isclass(plugin):
        raise TypeError(f"the entry point names the class {plugin.__name__}; it must name the plugin's module")
    wanted = getattr(plugin, "aiaas_api", hookspecs.API)
    if wanted != hookspecs.API:
        raise TypeError(f"it is written for version {wanted} of the plugin API, and this is version {hookspecs.API}")
    manager = pluggy.PluginManager("aiaas_sdk")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    return manager.hook
