"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["memory"]

_GROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


def memory() -> int:
    """Bytes of memory: the machine's, or its container's where that has less (cgroups v2 and v1, Linux). Where nobody
    says it, more than there can be."""
    return min([_installed(), *_allowed()])


def _installed() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 1 << 62


def _allowed() -> Iterator[int]:
    """The limit of each group that this process is in."""
    try:
        lines = _MINE.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (_GROUPS / "memory", "memory.limit_in_bytes") if kinds else (_GROUPS, "memory.max")
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            try:
                told = (top / group / name).read_text().strip()
            except OSError:  # of a group that this container doesn't see
                continue
            if told.isdecimal():  # "max" is no limit
                yield int(told)
