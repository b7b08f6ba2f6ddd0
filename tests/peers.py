"""Strangers' servers and weights, for tests marked `peer`: run, waited for and ended; fetched once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.processes import server_process

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------- servers
@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, **environment: str) -> Iterator[str]:
    """The base URL of a server, when our client says that it's ready."""
    base = f"openai+http://127.0.0.1:{port}/v1"
    model = aiaas.load(f"{base}#any")
    with contextlib.closing(model), server_process(command, folder, partial(ready, model), environment):
        yield base


def ready(model: Any) -> bool:
    with contextlib.suppress(aiaas.ModelNotReadyError):
        model.wait_ready(timeout=2)
        return True
    return False


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
