"""What lies in a bundle's folder now: its versions, its aliases, and the version that an address means.

Names and dates are read, and no file of a model: this may be done every few seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from aiaas_sdk import bundle
from aiaas_sdk.address import Address
from aiaas_sdk.errors import AiaasError, ModelNotFoundError

__all__ = ["Seen", "Stamp", "folder_of", "look", "size_of", "stamp_of"]

Stamp: TypeAlias = "tuple[tuple[str, int, int], ...]"
"""Name, size and time of change (in nanoseconds) of each file of a version."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was there at one moment.

    Attributes:
        versions: oldest first.
        aliases: each with the version that it means.
        meant: the version of the address; None where there is none.
        failure: why not.
    """

    versions: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    meant: str | None = None
    failure: AiaasError | None = None


def folder_of(address: Address) -> Path | None:
    """The folder of versions that an address names; None where it names something else."""
    if address.origin is not None or address.scheme == "route" or not address.target:
        return None
    path = Path(address.target)
    try:
        return path if bundle.versions(path) or address.scheme == "torch" else None
    except (AiaasError, ValueError):  # no path at all
        return None


def look(path: Path, wanted: str | None) -> Seen:
    """What is there.

    Args:
        wanted: the address's version or alias; None for the newest.
    """
    found: tuple[str, ...] = ()
    try:
        found = bundle.versions(path)
        aliases = bundle.aliases(path)
    except AiaasError as error:  # the aliases can't be read; who asks for none is served
        return Seen(found, {}, found[-1] if wanted is None and found else None, error)
    if not found:
        return Seen(failure=ModelNotFoundError("its folder holds no model any more"))
    meant = found[-1] if wanted is None else aliases.get(wanted, wanted)
    if meant not in found:
        return Seen(found, aliases, None, ModelNotFoundError(f"its folder has no version {wanted}"))
    return Seen(found, aliases, meant)


def stamp_of(path: Path, version: str) -> Stamp:
    """What tells whether the files of a version have changed."""
    return tuple(sorted((entry.name, *_facts(entry)) for entry in _files(path / version)))


def size_of(path: Path, version: str) -> int:
    """Bytes of the files of a version: its weights, for all that counts."""
    return sum(_facts(entry)[0] for entry in _files(path / version))


def _files(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _facts(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns
