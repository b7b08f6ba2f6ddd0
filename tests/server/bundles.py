"""Bundles whose answers tell which version gave them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import aiaas_sdk as aiaas
from tests.server.conftest import Answer, Client

__all__ = ["FAILURES", "ask", "meanwhile", "save", "until"]


FAILURES = (None, MemoryError(), RuntimeError("CUDA error: device-side assert triggered"), RuntimeError("a mistake"))


@aiaas.architecture("told-version")
class Told(nn.Module):
    """Answers each row with its version's number. A row is (seconds to take, and a failure: see `FAILURES`)."""

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.config = {"size": size}
        self.value = nn.Parameter(torch.zeros(1))
        self.ballast = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        if failure := FAILURES[int(x[:, 1].max())]:
            raise failure
        time.sleep(float(x[:, 0].max()))
        return self.value + 0 * x[:, :1]


def save(folder: Path, *, size: int = 1) -> str:
    """Write the next version, with so many more parameters (4 bytes each), which nobody uses; its number."""
    module = Told(size)
    version = int(([0, *sorted(int(one.name) for one in folder.glob("[0-9]*"))])[-1]) + 1
    with torch.no_grad():
        module.value.fill_(version)
    return aiaas.save(module, folder, example={"x": np.zeros((1, 2), np.float32)}).rpartition("@")[2]


def ask(client: Client, path: str = "m", *, seconds: float = 0, failure: int = 0, timeout: int | None = None) -> Answer:
    """Ask a model (`m`, or `m/versions/3`); the time limit is in milliseconds."""
    data = [seconds, float(failure)]
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": data}
    headers = {} if timeout is None else {"aiaas-timeout-ms": str(timeout)}
    return client("POST", f"/v2/models/{path}/infer", {"inputs": [x]}, headers)


@contextmanager
def meanwhile(client: Client, path: str = "m", *, seconds: float) -> Iterator[list[Answer]]:
    """A call that takes so long runs on another connection; its answer is in the list when it is over."""
    other, answers = Client(client.url), list[Answer]()
    thread = threading.Thread(target=lambda: answers.append(ask(other, path, seconds=seconds)))
    thread.start()
    time.sleep(0.2)
    try:
        yield answers
    finally:
        thread.join()
        other.connection.close()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)
