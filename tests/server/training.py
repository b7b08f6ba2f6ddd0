"""What the tests of jobs share: a model that can be trained, rows, and forms."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aiaas_sdk as aiaas
from aiaas_sdk.server.training.locking import locked
from tests.server.conftest import Answer, Client

__all__ = ["ENDED", "Slow", "begin", "create", "create_slow", "ended", "form", "nobody_works", "npz", "rows", "upload"]

ENDED = ("succeeded", "failed", "cancelled")


def create(folder: Path) -> Path:
    """A repository with the untrained model `iris`: x FP32 [-1,4], three classes."""
    aiaas.create(
        f"torch:{folder / 'models' / 'iris'}",
        architecture="mlp",
        inputs={"x": ("FP32", (-1, 4))},
        labels=["a", "b", "c"],
        seed=0,
    )
    return folder / "models"


@aiaas.architecture("test-slow")
class Slow(torch.nn.Module):
    """Takes a while for each step, wherever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.1), torch.nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02 if self.training else 0)
        return self.layers(x)


def create_slow(folder: Path) -> Path:
    """As `create`; a step takes 20 ms at least. Who serves it has to know the class."""
    torch.manual_seed(0)
    aiaas.save(Slow(), folder / "models" / "iris", example=torch.zeros(2, 4), labels=["a", "b", "c"])
    return folder / "models"


def rows(count: int = 256) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def form(content: bytes, field: str = "file", **fields: str) -> tuple[bytes, dict[str, str]]:
    """A form with one file: its body and its headers."""
    given = {"purpose": "fine-tune", **fields} if field == "file" else fields
    lines = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in given.items()
    ]
    head = "".join(lines) + f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="rows.npz"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}


def upload(client: Client, content: bytes | None = None, headers: Mapping[str, str] | None = None) -> str:
    """Upload rows; the file's id."""
    if content is None:
        x, y = rows()
        content = npz(x=x, y=y)
    body, kind = form(content)
    answer = client("POST", "/v1/files", body, {**kind, **(headers or {})})
    assert answer.status == 200, answer.body
    id: str = answer.document["id"]
    return id


def begin(client: Client, file: str, headers: Mapping[str, str] | None = None, **wish: Any) -> Answer:
    return client("POST", "/v1/fine_tuning/jobs", {"model": "iris", "training_file": file, **wish}, headers)


def ended(client: Client, id: str, seconds: float = 60.0, headers: Mapping[str, str] | None = None) -> Any:
    """The job, once it has ended."""
    return until(lambda: job if (job := _job(client, id, headers))["status"] in ENDED else None, seconds)


def _job(client: Client, id: str, headers: Mapping[str, str] | None) -> Any:
    return client("GET", f"/v1/fine_tuning/jobs/{id}", headers=headers).document


def until(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `look` finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came in {seconds} s")


@contextmanager
def nobody_works(folder: Path) -> Iterator[None]:
    """While it is entered no server does the folder's jobs: they wait."""
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", 0):
        yield
