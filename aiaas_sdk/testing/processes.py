"""The server that a backend is for, as a process of its own while tests run.

::

    @pytest.fixture(scope="session")
    def server(tmp_path_factory):
        port = free_port()
        command = ["otherserve", "--port", str(port)]
        with server_process(command, tmp_path_factory.mktemp("server"), answers(f"http://127.0.0.1:{port}/health")):
            yield f"other+http://127.0.0.1:{port}"
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from aiaas_sdk.errors import ModelNotReadyError

__all__ = ["answers", "free_port", "server_process"]

LOG = "log.txt"
STARTING, ENDING = 90.0, 10.0
"""Seconds that a server may take for it."""
PAUSE = 0.1
TOLD = 4000
"""Characters of its log in an error."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened at a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> Callable[[], bool]:
    """Whether a GET is answered with 2xx. It asks directly, whatever proxies are set."""
    return partial(_answers, url)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:  # it answers, and isn't ready yet
        error.close()
    except OSError:  # nobody listens yet
        pass
    return False


@contextlib.contextmanager
def server_process(
    command: Sequence[str | Path],
    folder: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """A server, from when it is ready; at the end of the block it is gone, with all the processes that it has started.

    Args:
        command: the program and its arguments; no shell sees them.
        folder: what it runs in; what it prints goes to log.txt there.
        ready: asked until it says so.
        environment: what it has besides this process's own.

    Raises:
        ModelNotReadyError: it ended, or wasn't ready within 90 seconds; the end of its log is in the message.
    """
    log = folder / LOG
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await(process, ready, log)
        yield
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < end:
        if ready():
            return
        time.sleep(PAUSE)
    how = f"isn't ready after {STARTING:g} s" if process.poll() is None else f"ended with status {process.poll()}"
    told = log.read_text(errors="replace")[-TOLD:].strip()
    raise ModelNotReadyError(f"{Path(str(process.args[0])).name} {how}; it printed:\n{told}")  # type: ignore[index]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    if os.name == "nt":
        process.kill()
    else:  # workers may outlive the process that has started them
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait(ENDING)
