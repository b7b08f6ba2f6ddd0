"""The versions of a bundle on disk: `<repository>/<name>/<version>/`. Whole versions only, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiaas_sdk import disk
from aiaas_sdk.bundle.files import read_file
from aiaas_sdk.bundle.manifest import MAX_BYTES, document_of
from aiaas_sdk.errors import AddressError, BundleError, ModelNotFoundError
from aiaas_sdk.flow import Buffer

__all__ = ["Located", "aliases", "locate", "own_name", "repository", "set_alias", "versions", "write"]

VERSION = re.compile(r"[1-9][0-9]{0,17}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
ALIASES = "aliases.json"
ASIDE = ".saving-"
LEFTOVER = 3600
"""Seconds after which an unfinished write is taken for dead."""


@dataclass(frozen=True, slots=True)
class Located:
    """One version, resolved once: what moves later doesn't change it."""

    folder: Path
    name: str
    version: str
    versions: tuple[str, ...]


def versions(path: Path) -> tuple[str, ...]:
    """The versions under `path`, oldest first, compared as numbers. BundleError: the folder can't be read."""
    try:
        found = [entry.name for entry in os.scandir(path) if VERSION.fullmatch(entry.name) and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:  # a path that is too long, links in a circle, a folder of somebody else
        raise BundleError(f"{str(path)[:200]} can't be read: {error.strerror}") from None
    return tuple(sorted(found, key=int))


def own_name(path: Path) -> str:
    """The name of the folder, whatever leads there. BundleError: nothing does."""
    try:
        return path.resolve().name
    except (OSError, RuntimeError):  # the latter for links in a circle, until Python 3.12
        raise BundleError(f"{str(path)[:200]} leads nowhere") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def locate(path: Path, version: str | None = None) -> Located:
    """The newest version, or the one that digits or an alias pin.

    Raises:
        AddressError: the version is no version. ModelNotFoundError: it isn't there.
    """
    found = versions(path)
    if not found:
        raise ModelNotFoundError(f"{path} holds no model", hint=_instead(path))
    wanted = found[-1] if version is None else _resolved(path, version)
    if wanted not in found:
        raise ModelNotFoundError(f"{path} has no version {wanted}; it has {', '.join(found)}")
    return Located(path / wanted, own_name(path), wanted, found)


def _instead(path: Path) -> str:
    """What to do about a path without a model, by what is there."""
    if (path / "config.json").is_file() or path.suffix == ".gguf":
        return f"aiaas import {path} FOLDER makes a bundle of it"
    if path.is_file():
        return "A bundle is a folder, which aiaas.save(module, path, example=...) writes; a file of weights is none"
    if path.is_dir() and (inside := [entry.name for entry in sorted(path.iterdir()) if versions(entry)]):
        return f"It is a folder of models: {', '.join(str(path / name) for name in inside[:8])}"
    return "aiaas.save(module, path, example=...) writes one" + ("" if path.exists() else "; there is no such folder")


def _resolved(path: Path, version: str) -> str:
    if VERSION.fullmatch(version):
        return version
    if not ALIAS.fullmatch(version):
        raise AddressError(f"{version[:40]!r} is neither a version nor an alias")
    known = aliases(path)
    if version not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ModelNotFoundError(f"{path} has no alias {version!r}; its aliases: {names}")
    return known[version]


def aliases(path: Path) -> dict[str, str]:
    """The version that each alias means.

    Raises:
        BundleError: the file isn't a map of them. UnsafeBundleError: it is a link, or no plain file.
    """
    file = path / ALIASES
    if not os.path.lexists(file):  # it is replaced, and never away for a moment
        return {}
    document = document_of(bytes(read_file(path, ALIASES, MAX_BYTES)), str(file))
    if not all(isinstance(version, str) and VERSION.fullmatch(version) for version in document.values()):
        raise BundleError(f"{file} isn't a map from alias to version")
    return document


def set_alias(path: Path, alias: str, version: str) -> None:
    """Let `alias` mean `version` from now on, in one step. BundleError: the disk refused, and nothing has changed."""
    if not ALIAS.fullmatch(alias):
        raise AddressError(f"{alias[:40]!r} is no alias", hint="A letter, then letters, digits, - or _")
    if version not in versions(path):
        raise ModelNotFoundError(f"{path} has no version {version}")
    known = {**aliases(path), alias: version}
    try:
        disk.replace(path / ALIASES, json.dumps(known, indent=1).encode())
    except OSError as error:
        raise BundleError(f"{path / ALIASES} can't be written: {error.strerror or error}") from error


def repository(path: Path) -> dict[str, Path]:
    """The bundles in a folder by name; a folder that is a bundle itself is the only one."""
    if versions(path):
        return {own_name(path): path}
    try:
        folders = sorted(Path(entry.path) for entry in os.scandir(path) if _is_folder(entry))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"{path} is no folder") from None
    return {folder.name: folder for folder in folders if versions(folder)}


def write(path: Path, files: Callable[[str], Mapping[str, Buffer]], version: int | None = None) -> Located:
    """Write a version: a hidden folder first, then one rename.

    Args:
        path: the bundle.
        files: gives the files, the manifest among them, for the version's number.
        version: the number; None takes the next one.

    Raises:
        BundleError: the version exists, or the disk refused; nothing of it is there then.
    """
    new = not os.path.lexists(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        return _write(path, files, version)
    except OSError as error:
        if new:
            with contextlib.suppress(OSError):  # it isn't there, or another writer has made use of it
                path.rmdir()
        raise BundleError(f"{path} can't be written: {error.strerror or error}") from error


def _write(path: Path, files: Callable[[str], Mapping[str, Buffer]], version: int | None) -> Located:
    for _ in range(1000):
        number = str(version or int((versions(path) or ("0",))[-1]) + 1)
        try:
            with disk.new_folder(path / number, ASIDE) as folder:
                for name, data in files(number).items():
                    disk.new_file(folder / name, data)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (path / number).exists():
                raise
            if version is not None:
                raise BundleError(f"{path} has a version {number} already", hint="Leave version= out") from None
            continue  # another writer took this number
        return locate(path, number)
    raise BundleError(f"{path}: other writers took every number")


def _sweep(path: Path) -> None:
    for entry in os.scandir(path):
        if entry.name.startswith(ASIDE):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER:
                    shutil.rmtree(entry.path, ignore_errors=True)
