"""What a benchmark starts: a server on one core, and clients on the other that are told when it is their turn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CLIENT_CORE, SERVER_CORE = 0, 1


def two_cores() -> None:
    """Ends the benchmark on a machine with fewer."""
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("clients and server need a core each")


def pinned(core: int | None) -> Callable[[], None] | None:
    """What a new process does first; it stays on that core."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def await_ready(process: subprocess.Popen[Any], url: str, log: Path | None = None) -> None:
    """Wait until a GET is answered with 200; without one the benchmark ends."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        try:
            opener.open(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit("the server doesn't start" + (f":\n{log.read_text()[-3000:]}" if log else ""))


class Worker:
    """A process that is told a line at a time on stdin, and answers each with one on stdout.

    Args:
        command: a Python, its script, and what that is told.
        core: what it is pinned to; None for any.
        environment: what it has besides this process's own.
    """

    def __init__(
        self, command: Sequence[str | Path], core: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = Path(command[1]).name
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=pinned(core),
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, line: object) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        """The next line, which is JSON."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._name} ended early (status {self._process.wait()})")
        return json.loads(line)

    def turn(self, line: object) -> Any:
        self.tell(line)
        return self.answer()
