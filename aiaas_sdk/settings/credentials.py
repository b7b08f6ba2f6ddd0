"""Credentials: each belongs to one origin, and is read when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.secret import Secret
from aiaas_sdk.settings.values import MisfitError, nearest, what

__all__ = ["KEYS", "credential", "origin_of", "sealed"]

KEYS = ("api_key_env", "api_key_file", "api_key")
MAX_BYTES = 65536
_PORTS = {"http": 80, "https": 443}


def origin_of(text: str) -> str | None:
    """An origin in the one form that is compared (RFC 6454, section 4): lower case, no default port, no slash.

    None where the text isn't `http[s]://HOST[:PORT]`, so that a path or a user in it can't be overlooked.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or "\\" in text:
        return None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


def credential(table: Any, path: Path, environ: Mapping[str, str]) -> Secret:
    """The secret that a table `[credentials."ORIGIN"]` of the file `path` names. Nothing is read yet."""
    if not isinstance(table, Mapping):
        raise MisfitError(f"wants a table and has {what(table)}", hint=f"Give one of {', '.join(KEYS)}")
    for key in table:
        if key not in KEYS:
            raise MisfitError("is unknown", key, nearest(key, KEYS))
    if len(table) != 1:
        raise MisfitError(f"has {len(table) or 'none'} of {', '.join(KEYS)}", hint="Give exactly one")
    key, value = next(iter(table.items()))
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value.strip():
        raise MisfitError("wants text that isn't blank", key)
    if key == "api_key_env":
        return Secret(lambda: environ.get(value, ""), f"environment variable {value}")
    file = path.parent / os.path.expanduser(value)
    return Secret(lambda: _contents(file), f"file {file}")


def sealed(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document with each `api_key`, wherever it stands, as a Secret: no later frame or message holds its text."""
    for key, value in document.items():
        if isinstance(value, dict):
            sealed(value, path)
        elif key == "api_key" and isinstance(value, str) and value.strip():
            document[key] = _literal(value, f"{path} [credentials]")
    return document


def _literal(text: str, source: str) -> Secret:
    return Secret(lambda: text, source)


def _contents(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES).decode()
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        problem = "it isn't UTF-8"
    raise ConfigError(f"the file {file} of a credential can't be read: {problem}")
