"""From the operator's targets to names, addresses and options; nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from aiaas_sdk.address import Address, parse
from aiaas_sdk.bundle import own_name, repository, versions
from aiaas_sdk.errors import AddressError, AiaasError, ConfigError, ModelNotFoundError
from aiaas_sdk.finding import find
from aiaas_sdk.records.options import ENGINE_OPTIONS
from aiaas_sdk.registry import backend_class
from aiaas_sdk.server.paths import HIDDEN, WORDS

__all__ = ["Targets", "checked", "named", "newcomers", "pinned", "repository_of", "resolved", "shown", "taken"]

Targets: TypeAlias = "Sequence[str | PathLike[str]]"

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]*)=(.+)", re.DOTALL)
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Surrogates stand for the bytes of a folder's name that are no UTF-8: no answer that names it could be written."""


def named(target: str) -> Iterator[tuple[str, str]]:
    """The name and address of each model of a target."""
    path = Path(target)
    if target.strip() and path.is_dir():
        found = repository(path)
        if not found:
            raise ConfigError(f"{target} holds no model", hint="aiaas.save(module, path, example=...) writes one")
        yield from ((checked(name), f"torch:{folder}") for name, folder in found.items())
    elif named := _NAMED.fullmatch(target):
        yield checked(named[1]), named[2]
    else:
        yield checked(_own_name(parse(target))), target


def repository_of(target: str) -> Path | None:
    """The folder of bundles that a target is; None where it is something else."""
    path = Path(target)
    return path if target.strip() and path.is_dir() and not versions(path) else None


def newcomers(folder: Path, known: frozenset[str]) -> list[tuple[str, str]]:
    """The name and address of each bundle in a folder that isn't known. A folder that can't be read has none."""
    try:
        found = {} if versions(folder) else repository(folder)
    except (OSError, AiaasError):
        return []
    return [(name, f"torch:{path}") for name, path in found.items() if name not in known and _NAME.fullmatch(name)]


def _own_name(address: Address) -> str:
    """The model of an address, or the last part of its path, or else its scheme."""
    if address.model:
        return address.model
    if address.scheme == "torch":
        return own_name(Path(address.target))
    last = address.target.rstrip("/").rpartition("/")[2]
    return last if re.fullmatch(r"(?!v\d+$)[\w.-]+", last) else address.scheme  # /v1 ends an address of OpenAI's kind


def checked(name: str) -> str:
    """AddressError for a name that can't be served: requests with it in their paths would mean something else."""
    first, *others = name.split("/")
    if not _NAME.fullmatch(name) or {"", ".", ".."} & {first, *others}:
        raise AddressError(f"{name[:80]!r} can't be the name of a served model", hint="Give one: NAME=ADDRESS")
    if name in HIDDEN:
        raise AddressError(
            f"{name!r} can't be the name of a served model: /v2/models/{name} is a path of the server's own",
            hint="Give another: NAME=ADDRESS; of a model in a folder of bundles, rename its folder",
        )
    if taken := {*WORDS} & {*others}:
        raise AddressError(
            f"{name[:80]!r} can't be the name of a served model: {min(taken)!r} follows names in the paths of requests",
            hint="Give another: NAME=ADDRESS",
        )
    return name


def resolved(address: str, options: Mapping[str, Any]) -> tuple[Address, tuple[Address, ...], dict[str, Any]]:
    """The address that a bare name stands for, the members of a route, and the options.

    These are the ones that the name's entry in the settings gives it, too.
    """
    found = find(address, options)
    if found.route:
        members = tuple(member.address for member in found.members)
        return Address("route", found.text, None, found.text), members, dict(options)
    member = found.members[0]
    return member.address, (), _concerning(member.address, member.options)


def taken(address: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that mean something to the address's backend."""
    found = find(address, options)
    return dict(options) if found.route else _concerning(found.members[0].address, options)


def _concerning(address: Address, options: Mapping[str, Any]) -> dict[str, Any]:
    taken = backend_class(address.scheme, str(address)).options_taken | {"concurrency"}
    return {name: value for name, value in options.items() if name in taken or name not in ENGINE_OPTIONS}


def pinned(address: Address, version: str) -> str:
    if address.scheme == "route":
        raise ModelNotFoundError(f"of a route only its own version is served, and {shown(version)} is another")
    scheme = f"{address.scheme}+" if address.origin else f"{address.scheme}:"
    return f"{scheme}{address.target}@{version}"


def shown(text: str | None) -> str:
    """A client's word in a message: one short line."""
    line = "".join(char if char.isprintable() else "?" for char in (text or "")[:80])
    return f"'{line}'"
