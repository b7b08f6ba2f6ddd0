"""The table [serve] of `aiaas.toml`: what `aiaas serve` serves, and how."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.settings.values import MisfitError, fit, nearest

__all__ = ["PATH_SCHEMES", "Serve", "together"]

PATH_SCHEMES = frozenset(("torch", "onnx", "replay"))
"""The schemes whose target is a path: in a file it is relative to the file's folder."""
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Serve:
    """A file's table.

    Attributes:
        path: of the file.
        models: options of the served models, checked.
        server: the server's own, which are checked by whoever knows them.
    """

    path: Path
    models: Mapping[str, Any] = field(repr=False)
    server: Mapping[str, Any] = field(repr=False)

    @property
    def source(self) -> str:
        return f"{self.path} [serve]"


def together(tables: Sequence[Serve], hints: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of some tables, the first one's before the others', and the source of each.

    Args:
        tables: of the files.
        hints: the server's options and what they take; paths are made relative to the file's folder.

    Raises:
        ConfigError: one is unknown, or doesn't fit; file, table and key are named.
    """
    found: dict[str, tuple[Any, str]] = {}
    for table in tables:
        for name, value in table.models.items():
            found.setdefault(name, (value, table.source))
        for name, value in table.server.items():
            found.setdefault(name, (_fitted(table, name, value, hints), table.source))
    return {name: value for name, (value, _) in found.items()}, {name: source for name, (_, source) in found.items()}


def _fitted(table: Serve, name: str, value: Any, hints: Mapping[str, Any]) -> Any:
    folder = table.path.parent
    try:
        if name not in hints:
            raise MisfitError("is unknown", hint=nearest(name, hints))
        fitted = fit(value, hints[name], folder)
    except MisfitError as error:
        key, problem, hint = ".".join(filter(None, (name, error.key))), error.problem, error.hint
    else:
        return [_placed(target, folder) for target in fitted] if name == "targets" else fitted
    raise ConfigError(f"{table.source} {key} {problem}", hint=hint)


def _placed(target: str, folder: Path) -> str:
    """A target with its path made absolute: a folder, an address, or NAME=ADDRESS."""
    path = folder / os.path.expanduser(target)
    if path.is_dir():
        return os.path.normpath(path)
    named = _NAMED.fullmatch(target)
    name, address = (f"{named[1]}=", named[2]) if named else ("", target)
    try:
        found = parse(address)
    except AiaasError:  # told by whoever serves it
        return target
    if found.scheme not in PATH_SCHEMES:
        return target
    version = f"@{found.version}" if found.version else ""
    return f"{name}{found.scheme}:{os.path.normpath(folder / os.path.expanduser(found.target))}{version}"
