"""A lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiaas_sdk.errors import TrainingError

__all__ = ["hold", "locked"]

_LOOK = 0.05  # seconds


def hold(path: Path) -> Any:
    """The lock, as a file that holds it until it is closed; None where somebody else does."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold it for the length of a `with`.

    Raises:
        TrainingError: somebody else held it for so many seconds.
    """
    end = time.monotonic() + seconds
    while (file := hold(path)) is None:
        if time.monotonic() > end:
            raise TrainingError("another process is still at work on this job")
        time.sleep(_LOOK)
    with file:
        yield
