"""A server as a process of its own, which tells on each line of stdin what it holds. Usage: served.py FOLDER

The line `kinds` asks for its objects, counted by type; any other for files, threads, tasks and memory. Its models:
`echo`, and `talk`, which does what it is told (tests/talker.py). FOLDER is an empty one.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path

QUEUE = 64


class Forgotten(list[str]):
    """In place of the talker's `STEPS`: the process that is measured keeps no account of the load.

    In six minutes they were 77,000 words. When they went, what had come between them held the memory
    around them: 3.6 MiB that looked like the server's.
    """

    def append(self, step: str, /) -> None:
        pass


def install(folder: Path) -> None:
    """`talker:` as an installed backend."""
    found = folder / "aiaas_talker-1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-talker\nVersion: 1.0\n")
    (found / "entry_points.txt").write_text("[aiaas_sdk.backends]\ntalker = tests.talker\n")
    sys.path[:0] = [str(folder), str(Path(__file__).parents[2])]


def held() -> dict[str, float]:
    """Open files, threads, tasks that aren't done, MiB in memory, and Python's memory blocks."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that what is held is seen
    tasks = [task for task in gc.get_objects() if isinstance(task, asyncio.Task) and not task.done()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(tasks),
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        "blocks": sys.getallocatedblocks(),
    }


def kinds() -> dict[str, int]:
    """How many objects there are of each type, of those that can be part of a cycle."""
    gc.collect()
    counts: Counter[str] = Counter()
    for found in gc.get_objects():  # one by one: where Counter is given a generator, each ABC remembers its class
        counts[f"{type(found).__module__}.{type(found).__qualname__}"] += 1
    return counts


def main() -> None:
    from aiaas_sdk.server import serve_in_thread
    from tests import talker

    talker.STEPS = Forgotten()
    with serve_in_thread(["echo=echo:", "talk=talker:"], queue=QUEUE, concurrency=4) as url:
        print(url, flush=True)
        for line in sys.stdin:
            print(json.dumps(kinds() if line.strip() == "kinds" else held()), flush=True)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    main()
