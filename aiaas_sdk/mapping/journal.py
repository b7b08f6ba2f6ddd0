"""A file of records that only grows, and that a kill at any moment leaves usable.

::

    "aiaasmap"  8 bytes
    format      4 bytes, little-endian: 1
    record      length of its contents (8 bytes), CRC-32 of length and contents (4 bytes), the contents; any number

A record that was begun and not finished is cut off before the next one is written. What was written is the operating
system's at once, and outlives the process however that ends; `sync` sees to it that it outlives the machine's power.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Buffer

__all__ = ["Journal"]

logger = logging.getLogger("aiaas_sdk.mapping")

MAGIC = b"aiaasmap"
FORMAT = 1
START = MAGIC + struct.pack("<I", FORMAT)
FRAME = struct.Struct("<QI")
PIECE = 1 << 20


class Journal:
    """An open journal, locked against other processes and other runs in this one. Safe across threads.

    Raises:
        ConfigError: it is in use, is no such file, or can't be opened; it is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._file = os.fdopen(self._opened(), "r+b", buffering=0)
        self._end, self._torn = 0, False
        try:
            _lock(self._file.fileno(), path)
            self._check_start()
        except BaseException:
            self._file.close()
            raise

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._failed("opened", error, "Give a path in a folder that is there and can be written") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ConfigError(f"the checkpoint {self.path} is no plain file", hint="Give another path")
        return handle

    def _failed(self, what: str, error: OSError, hint: str | None = None) -> ConfigError:
        return ConfigError(f"the checkpoint {self.path} can't be {what}: {error.strerror or error}", hint=hint)

    def _check_start(self) -> None:
        found = self._bytes(0, len(START))
        if not START.startswith(found):  # shorter: it was being made when the process ended
            hint = "Give another path; the file was left as it is"
            if not found.startswith(MAGIC):
                raise ConfigError(f"{self.path} is no checkpoint of map", hint=hint)
            (known,) = struct.unpack("<I", found[len(MAGIC) :])
            raise ConfigError(f"the checkpoint {self.path} has format {known}; this version knows {FORMAT}", hint=hint)

    # ------------------------------------------------------------ reading
    def records(self) -> Iterator[tuple[int, int]]:
        """Where the contents of each whole record begin, and their length. To be read to its end, once, at first."""
        size = os.fstat(self._file.fileno()).st_size
        at = len(START)
        while (length := self._whole(at, size)) is not None:
            at += FRAME.size
            yield at, length
            at += length
        self._end = at if size >= len(START) else 0
        self._torn = size > self._end
        if self._torn:
            logger.warning("the checkpoint %s ends in a record that isn't whole; it is asked again", self.path)

    def _whole(self, at: int, size: int) -> int | None:
        """The length of the record that begins here, if all of it is there as it was written."""
        if at + FRAME.size > size:
            return None
        frame = self._bytes(at, FRAME.size)
        length, checksum = FRAME.unpack(frame)
        if length > size - at - FRAME.size:
            return None
        found, place, end = zlib.crc32(frame[:8]), at + FRAME.size, at + FRAME.size + length
        while place < end:
            piece = self._bytes(place, min(PIECE, end - place))
            if not piece:
                return None
            found, place = zlib.crc32(piece, found), place + len(piece)
        return length if found == checksum else None

    def read(self, at: int, length: int) -> bytearray:
        """So many bytes from there on."""
        data = self._bytes(at, length)
        if len(data) != length:
            raise ConfigError(f"the checkpoint {self.path} became shorter while it was in use")
        return data

    def _bytes(self, at: int, length: int) -> bytearray:
        """At most so many bytes; fewer at the end of the file."""
        data, filled = bytearray(length), 0
        try:
            with self._guard:
                self._file.seek(at)
                while filled < length and (count := self._file.readinto(memoryview(data)[filled:])):
                    filled += count
        except OSError as error:
            raise self._failed("read", error) from None
        return data if filled == length else data[:filled]

    # ------------------------------------------------------------ writing
    def append(self, parts: Sequence[Buffer]) -> None:
        """Write one record. After `close` nothing is written: a call that nobody waited for came to its end.

        Raises:
            ConfigError: the disk refused; what was written before stays whole.
        """
        size = struct.pack("<Q", sum(len(part) for part in parts))
        checksum = zlib.crc32(size)
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        with self._guard:
            if not self._file.closed:
                self._write((size, struct.pack("<I", checksum), *parts))

    def _write(self, parts: Sequence[Buffer]) -> None:
        end = self._end
        try:
            if not end:
                parts = (START, *parts)
            if self._torn:
                self._file.truncate(end)
                self._torn = False
            self._file.seek(end)
            for part in _joined(parts):
                view = memoryview(part)
                while view:
                    count = self._file.write(view) or 0
                    view, end = view[count:], end + count
        except OSError as error:
            self._torn = True
            raise self._failed("written", error, "What it holds is good; make room, and run it again") from None
        self._end = end

    def sync(self) -> None:
        """Have the disk itself hold what was written."""
        with contextlib.suppress(ValueError):  # closed meanwhile
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._failed("written", error) from None

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        with self._guard:
            self._file.close()


def _joined(parts: Sequence[Buffer]) -> Sequence[Buffer]:
    """Small parts as one: each write is a call of the operating system."""
    return (b"".join(parts),) if sum(len(part) for part in parts) < PIECE else parts


def _lock(handle: int, path: Path) -> None:
    """Hold the file for as long as it is open; the operating system lets go of it when the process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 1 << 62, os.SEEK_SET)  # a place that is never read: others may not read what is locked
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter is Windows'
        raise ConfigError(
            f"the checkpoint {path} is in use by another run", hint="Wait for its end, or give another path"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the checkpoint {path} can't be locked: {error.strerror}", hint="Give a path on another file system"
        ) from None
