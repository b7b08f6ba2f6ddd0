"""The versions of a bundle on disk: `<repository>/<name>/<version>/`. Whole versions only, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiaas_sdk.errors import AddressError, BundleError, ModelNotFoundError
from aiaas_sdk.flow import Buffer

__all__ = ["Located", "locate", "repository", "set_alias", "versions", "write"]

VERSION = re.compile(r"[1-9][0-9]{0,17}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
ALIASES = "aliases.json"
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
    """The versions under `path`, oldest first, compared as numbers."""
    try:
        found = [entry.name for entry in os.scandir(path) if VERSION.fullmatch(entry.name) and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(found, key=int))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def locate(path: Path, version: str | None = None) -> Located:
    """The newest version, or the one that digits or an alias pin.

    Raises:
        AddressError: the version is no version. ModelNotFoundError: it isn't there.
    """
    found = versions(path)
    if not found:
        raise ModelNotFoundError(f"{path} holds no model", hint="aiaas.save(module, path, example=...) writes one")
    wanted = found[-1] if version is None else _resolved(path, version)
    if wanted not in found:
        raise ModelNotFoundError(f"{path} has no version {wanted}; it has {', '.join(found)}")
    return Located(path / wanted, path.resolve().name, wanted, found)


def _resolved(path: Path, version: str) -> str:
    if VERSION.fullmatch(version):
        return version
    if not ALIAS.fullmatch(version):
        raise AddressError(f"{version[:40]!r} is neither a version nor an alias")
    known = _aliases(path)
    if version not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ModelNotFoundError(f"{path} has no alias {version!r}; its aliases: {names}")
    return known[version]


def _aliases(path: Path) -> dict[str, str]:
    try:
        document = json.loads((path / ALIASES).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise BundleError(f"{path / ALIASES} can't be read") from None
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise BundleError(f"{path / ALIASES} isn't a map from alias to version")
    return document


def set_alias(path: Path, alias: str, version: str) -> None:
    """Let `alias` mean `version` from now on, in one step."""
    if not ALIAS.fullmatch(alias):
        raise AddressError(f"{alias[:40]!r} is no alias", hint="A letter, then letters, digits, - or _")
    if version not in versions(path):
        raise ModelNotFoundError(f"{path} has no version {version}")
    aside = path / f".{ALIASES}.{uuid.uuid4().hex}"
    _write_file(aside, json.dumps({**_aliases(path), alias: version}, indent=1).encode())
    os.replace(aside, path / ALIASES)
    _sync_folder(path)


def repository(path: Path) -> dict[str, Path]:
    """The bundles in a folder by name; a folder that is a bundle itself is the only one."""
    if versions(path):
        return {path.resolve().name: path}
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
        BundleError: the version exists, or the disk refused; nothing of it is visible then.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        return _write(path, files, version)
    except OSError as error:
        raise BundleError(f"{path} can't be written: {error.strerror or error}") from error


def _write(path: Path, files: Callable[[str], Mapping[str, Buffer]], version: int | None) -> Located:
    for _ in range(1000):
        number = str(version or int((versions(path) or ("0",))[-1]) + 1)
        aside = path / f".saving-{uuid.uuid4().hex}"
        try:
            aside.mkdir()
            for name, data in files(number).items():
                _write_file(aside / name, data)
            _sync_folder(aside)
            os.rename(aside, path / number)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (path / number).exists():
                raise
            if version is not None:
                raise BundleError(f"{path} has a version {number} already", hint="Leave version= out") from None
            continue  # another writer took this number
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync_folder(path)
        return locate(path, number)
    raise BundleError(f"{path}: other writers took every number")


def _write_file(path: Path, data: Buffer) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # folders can't be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    for entry in os.scandir(path):
        if entry.name.startswith(".saving-"):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER:
                    shutil.rmtree(entry.path, ignore_errors=True)
