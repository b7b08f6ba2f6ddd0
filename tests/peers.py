"""Strangers' servers and weights, for tests marked `peer`: run, waited for and ended; fetched once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiaas_sdk as aiaas

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------- servers
@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, **environment: str) -> Iterator[str]:
    """The base URL of a server of ours, when it is ready; it ends with all the processes that it has started."""
    base = f"openai+http://127.0.0.1:{port}/v1"
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_ready(process, f"{base}#any", log)
        yield base
    finally:
        with contextlib.suppress(ProcessLookupError):  # the worker processes outlive a main process that is told to end
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def await_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + 90
    model = aiaas.load(address)
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(aiaas.ModelNotReadyError):
            model.wait_ready(timeout=2)
            model.close()
            return
    pytest.fail(f"{address} doesn't get ready (exit status {process.poll()}):\n{log.read_text()[-4000:]}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# ---------------------------------------------------------------- weights
def weights(name: str) -> Path:
    """The folder that scripts/models.sh gives; the lock keeps two test runs from fetching it together."""
    if os.name == "nt":
        pytest.skip("scripts/models.sh needs a POSIX shell")
    (ROOT / ".models").mkdir(exist_ok=True)
    with (ROOT / ".models" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["env", f"PYTHON={sys.executable}", str(ROOT / "scripts" / "models.sh"), name]
        made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, f"scripts/models.sh {name}:\n{made.stderr[-4000:]}"
    return Path(made.stdout.strip().splitlines()[-1])
