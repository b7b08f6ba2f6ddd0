"""Records in a folder: each a folder of its own, renamed into place, and seen by its owner alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aiaas_sdk import disk
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.permissions import caller

__all__ = ["Records", "made", "storing"]

RECORD = "record.json"
ASIDE = ".new-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STALE = 24 * 3600.0
"""Seconds after which what was begun and never put into place is removed."""
_HEX = 24


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """What the disk refuses is told to the client.

    Raises:
        RefusedError: 507, it is full; 500, something else is wrong with it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RefusedError(507, "the server's disk is full; nothing was kept", unread=True) from error
        raise


def made(folder: Path) -> Path:
    """The folder, there.

    Raises:
        ConfigError: it can't be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f"{ASIDE}{secrets.token_hex(8)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"jobs can't be kept in {folder}: {error.strerror or error}", hint="Give a folder that can be written"
        ) from None
    return folder


class Records:
    """Records of one kind.

    Args:
        folder: of the server's jobs.
        kind: the folder within it.
        prefix: of their ids.
    """

    def __init__(self, folder: Path, kind: str, prefix: str) -> None:
        self.folder = made(folder / kind)
        self._prefix = prefix
        self._id = re.compile(re.escape(prefix) + f"[0-9a-f]{{{_HEX}}}")

    def new_id(self, key: str | None = None) -> str:
        """An id: the same for the same key of the same caller, so that what was asked for twice is there once."""
        if key is None:
            return f"{self._prefix}{secrets.token_hex(_HEX // 2)}"
        return self._prefix + hashlib.sha256(json.dumps([caller().name, key]).encode()).hexdigest()[:_HEX]

    def path(self, id: str) -> Path:
        """The folder of a record. An id is letters that we made, or there is no such record.

        Raises:
            RefusedError: 404.
        """
        if not self._id.fullmatch(id):
            raise self.absent()
        return self.folder / id

    def absent(self) -> RefusedError:
        return RefusedError(404, f"there is no such {self.folder.name.removesuffix('s')}", code="not_found")

    def read(self, id: str) -> dict[str, Any]:
        """A record of the caller's own; another's isn't there for him.

        Raises:
            RefusedError: 404.
        """
        record = self.known(id)
        if record is None or record["caller"] != caller().name:
            raise self.absent()
        return record

    def known(self, id: str) -> dict[str, Any] | None:
        """A record, whoever's it is; None where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.path(id) / RECORD).read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def write(self, record: Mapping[str, Any]) -> None:
        with storing():
            disk.replace(self.path(record["id"]) / RECORD, json.dumps(record).encode())

    def aside(self) -> Path:
        """A folder that becomes a record by `place`."""
        with storing():
            folder = self.folder / f"{ASIDE}{secrets.token_hex(8)}"
            folder.mkdir(mode=0o700)
            return folder

    def place(self, aside: Path, record: Mapping[str, Any]) -> bool:
        """Put a folder into place; False where another request was quicker: then it is there still."""
        with storing():
            disk.new_file(aside / RECORD, json.dumps(record).encode())
            try:
                os.rename(aside, self.path(record["id"]))
            except OSError as error:
                if (
                    error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES)
                    or not self.path(record["id"]).exists()
                ):
                    raise
                return False
            return True

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, id: str) -> None:
        """Take a record away, at once and whole."""
        gone = self.folder / f"{ASIDE}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(id), gone)
        self.discard(gone)

    def ids(self) -> list[str]:
        """All ids, whoever's."""
        return [name for name in os.listdir(self.folder) if self._id.fullmatch(name)]

    def mine(self) -> list[dict[str, Any]]:
        """The caller's own records, newest first."""
        name = caller().name
        found = [record for id in self.ids() if (record := self.known(id)) is not None and record["caller"] == name]
        return sorted(found, key=lambda record: (record["created"], record["id"]), reverse=True)

    def sweep(self) -> None:
        """Remove what was begun long ago and never put into place, and what has expired."""
        now = time.time()
        for name in os.listdir(self.folder):
            if name.startswith(ASIDE):
                with contextlib.suppress(OSError):
                    if now - (self.folder / name).stat().st_mtime > STALE:
                        self.discard(self.folder / name)
            elif self._id.fullmatch(name):
                record = self.known(name)
                if record is not None and now > (record.get("expires_at") or float("inf")):
                    self.remove(name)
