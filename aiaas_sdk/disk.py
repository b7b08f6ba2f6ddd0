"""Files and folders that are there whole or not at all, also where the process or the machine stops.

What is written goes to the disk (fsync) before a rename shows it, and the folder with the new name after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiaas_sdk.flow import Buffer

__all__ = ["new_file", "new_folder", "replace"]


def new_file(path: Path, data: Buffer, mode: int = 0o666) -> None:
    """Write a file that isn't there yet. OSError: it is, or the disk refused; then a part of it may be there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: Buffer, mode: int = 0o666) -> None:
    """Write a file, in one step over what is there. OSError: the disk refused, and nothing has changed."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        new_file(aside, data, mode)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(place: Path, aside: str) -> Iterator[Path]:
    """A hidden folder beside `place`, to be filled with `new_file`; at the end of the block it becomes `place`.

    Args:
        place: where nothing is, or an empty folder.
        aside: how the hidden folder's name begins, so that a sweep finds what a killed process left.

    Raises:
        OSError: `place` is there (ENOTEMPTY, EEXIST), or the disk refused. The hidden folder is gone then.
    """
    folder = place.with_name(f"{aside}{uuid.uuid4().hex}")
    try:
        folder.mkdir()
        yield folder
        _sync(folder)
        os.rename(folder, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync(place.parent)


def _sync(folder: Path) -> None:
    if os.name == "nt":  # folders can't be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
