"""Credentials: each belongs to one origin, and is read when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.secret import Secret, names_variable
from aiaas_sdk.records.sources import Text
from aiaas_sdk.settings.values import MisfitError, nearest, what

__all__ = ["KEYS", "credential", "origin_of", "sealed"]

KEYS = ("api_key_env", "api_key_file", "api_key")
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
        if not names_variable(value):
            raise MisfitError("isn't the name of a variable", key, "The key itself is api_key")
        return Secret(Text(lambda: environ.get(value, "")), f"environment variable {value}")
    return Secret.file(path.parent / os.path.expanduser(value))


def sealed(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document with each `api_key` as a Secret and the values of each `headers` as hidden text, wherever they
    stand: no later frame or message holds their text."""
    for key, value in document.items():
        if key == "headers" and isinstance(value, dict):
            document[key] = {name: _hidden(entry) for name, entry in value.items()}
        elif isinstance(value, dict):
            sealed(value, path)
        elif key == "api_key" and isinstance(value, str) and value.strip():
            document[key] = Secret.of(value, f"{path} [credentials]")
    return document


def _hidden(value: Any) -> Any:
    return Hidden(value) if isinstance(value, str) else value
