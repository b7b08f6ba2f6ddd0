"""Modules that tests train, and their bundles."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import aiaas_sdk as aiaas


@aiaas.architecture("test-normed")
class Normed(nn.Module):
    """Batch normalisation and dropout: a running state, and random numbers."""

    def __init__(self, features: int = 4, classes: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.config = {"features": features, "classes": classes, "dropout": dropout}
        self.layers = nn.Sequential(
            nn.Linear(features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, classes)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


@aiaas.architecture("test-twofold")
class Twofold(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(7, 3), nn.Linear(7, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        both = torch.cat((a, b), -1)
        return {"kind": self.kind(both), "size": self.size(both)}


@aiaas.architecture("test-held")
class Held(nn.Module):
    """Takes long for each step, in whatever process, until there is a file: a run with it can be caught at work."""

    def __init__(self, free: str) -> None:
        super().__init__()
        self.config = {"free": free}
        self._free = Path(free)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and not self._free.exists():
            time.sleep(0.3)
        return self.layers(x)


@aiaas.architecture("test-watched")
class Watched(nn.Linear):
    """Draws its first weights, and says so."""

    made = threading.Event()

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.config: dict[str, Any] = {}
        self.example = torch.zeros(1, 4)
        self.made.set()


def flowers(rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of four features, and which of three classes they are of."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x @ np.random.default_rng(9).normal(size=(4, 3))).argmax(1)


def saved(folder: Path, module: nn.Module | None = None, labels: Any = ("a", "b", "c")) -> str:
    """The address of a bundle, without a version."""
    torch.manual_seed(0)
    module = module or Normed()
    example: Any = torch.zeros(2, 4)
    if isinstance(module, Twofold):
        example, labels = {"a": torch.zeros(2, 4), "b": torch.zeros(2, 3)}, None
    aiaas.save(module, folder / "model", example=example, labels=labels)
    return f"torch:{folder / 'model'}"


def weights(model: Any) -> dict[str, np.ndarray]:
    """All tensors of a loaded model, as they lie on the disk."""
    from aiaas_sdk import bundle
    from aiaas_sdk.backends.torch.weights import from_bytes

    address, _, version = str(model).partition("torch:")[2].rpartition("@")
    found = bundle.read(bundle.locate(Path(address), version), bundle.Trust.of(True))
    return {name: tensor.numpy() for name, tensor in from_bytes(found.weights).items()}


def same(a: Any, b: Any) -> bool:
    """Whether two versions have the same bits."""
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(one[n].tobytes() == other[n].tobytes() for n in one)
