"""Modules that several processes train; they import this file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import aiaas_sdk as aiaas
from tests.training.modules import flowers


@aiaas.architecture("test-level")
class Level(nn.Module):
    """With batch normalisation. What would magnify rounding isn't in it: a bias before that, whose gradient is rounding
    alone, for Adam to scale up; and the kink of a ReLU, on either side of which a row may fall."""

    def __init__(self, normed: bool = True) -> None:
        super().__init__()
        self.config = {"normed": normed}
        middle = nn.BatchNorm1d(16) if normed else nn.GELU()
        self.layers = nn.ModuleList([nn.Linear(4, 16, bias=False), middle, nn.Tanh(), nn.Linear(16, 3)])
        self.spare = nn.Linear(4, 3)  # never reached: no process may wait for its gradient

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            features = layer(features)
        return features


@aiaas.architecture("test-fragile")
class Fragile(nn.Module):
    """Raises, or is killed, in one of several processes, as the folder of its settings says."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.layer = nn.Linear(4, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        order = os.environ.get("TEST_FRAGILE") if self.training else None
        if order and os.environ.get("RANK") == "1":
            if order == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError(order)
        return self.layer(features)


class Slow(Dataset[Any]):
    """Takes its time with each row, and leaves the pid of who reads it in a folder."""

    def __init__(self, folder: Path, rows: int = 120, seconds: float = 0.002) -> None:
        self._x, self._y = flowers(rows)
        self._folder, self._seconds = folder, seconds

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, place: int) -> Any:
        if "RANK" in os.environ:
            name = f"{os.environ['RANK']}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
            (self._folder / name).write_text(str(os.getpid()))
        time.sleep(self._seconds)
        return self._x[place], int(self._y[place])


def step(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)
