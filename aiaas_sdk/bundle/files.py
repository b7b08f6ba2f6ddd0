"""Opening the files of a bundle: nothing but plain files in its own folder, each read once."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from aiaas_sdk.errors import BundleError, IntegrityError, UnsafeBundleError

__all__ = ["digest_of", "read_file", "read_listed"]

MANIFEST, SIGNATURE = "model.json", "model.sig"
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b")
"""How pickles, npy files and zip or gzip containers of them begin."""


def digest_of(data: bytes | bytearray | memoryview) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_file(folder: Path, name: str, limit: int | None = None) -> bytearray:
    """The bytes of one plain file, which are then hashed and used: the path is never opened twice."""
    path = folder / name
    # O_NONBLOCK: opening a FIFO must not wait for a writer. Neither flag exists on Windows.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    except OSError as error:
        raise UnsafeBundleError(f"{path} can't be opened as a plain file: {error.strerror}") from None
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise UnsafeBundleError(f"{path} is no plain file")
    with os.fdopen(handle, "rb", buffering=0) as file:
        if limit is not None and facts.st_size > limit:
            raise BundleError(f"{path} is larger than {limit} bytes")
        return _read(file, facts.st_size, path)


def _read(file: object, size: int, path: Path) -> bytearray:
    try:
        data = bytearray(size)
    except MemoryError:
        raise BundleError(f"{path} has {size} bytes, for which there is no memory") from None
    view, filled = memoryview(data), 0
    try:
        while filled < size:
            count = file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise IntegrityError(f"{path} became shorter while it was read")
            filled += count
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    return data


def read_listed(folder: Path, files: dict[str, str], program: str | None) -> dict[str, bytearray]:
    """All files that the manifest lists, checked against their digests; nothing else may lie there."""
    try:
        extra = {entry.name for entry in os.scandir(folder)} - {*files, MANIFEST, SIGNATURE}
    except OSError as error:  # it was taken away meanwhile
        raise BundleError(f"{folder} can't be read: {error.strerror}") from None
    if extra:
        raise IntegrityError(f"{folder} holds {sorted(extra)[0]!r}, which the manifest doesn't list")
    found: dict[str, bytearray] = {}
    for name, digest in files.items():
        data = read_file(folder, name)
        if digest_of(data) != digest:
            raise IntegrityError(
                f"{folder / name} isn't what was saved: its SHA-256 differs", hint="Save or copy the bundle again"
            )
        if name != program and data.startswith(PICKLES):
            raise UnsafeBundleError(f"{folder / name} is a pickle or an archive, which is code; it isn't loaded")
        found[name] = data
    return found
