"""What `aiaas serve` alone would do here, for `aiaas doctor`: each of its settings with its source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from aiaas_sdk.cli.serving import HOST, PORT, hints
from aiaas_sdk.server.serving import Serving, parted
from aiaas_sdk.settings import Settings

__all__ = ["serve_settings"]

DEFAULT = "default"
_PLACE: Mapping[str, Any] = {"targets": (), "host": HOST, "port": PORT}
"""What `serve` takes beside the options of `Serving`."""


def serve_settings(read: Settings) -> list[tuple[str, str, str]]:
    """The settings of the server, and of the models that it serves, as (name, value, source).

    Raises:
        ConfigError: one is unknown, doesn't fit, or is impossible.
    """
    found, sources = read.serve(hints())
    serving, concerning = parted({name: value for name, value in found.items() if name not in _PLACE})
    everywhere, origins = read.defaults
    values = {
        **{name: found.get(name, default) for name, default in _PLACE.items()},
        **{field.name: getattr(serving, field.name) for field in fields(Serving)},
        **everywhere,
        **concerning,
    }
    sources = {**origins, **sources}
    return [(name, _shown(name, value), sources.get(name, DEFAULT)) for name, value in values.items()]


def _shown(name: str, value: Any) -> str:
    """A value in words. Of a mapping only the names: a header or a key may be in it."""
    if value is None:
        return "none"
    if name == "api_key":
        return "***"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ", ".join(value) or "none"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value)) or "none"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
