"""The digits CNN with the weights of the benchmark, numpy to numpy: the same function in every server.

Servers have environments of their own; torch comes from the one of the benchmark, so that all run the same build of it.
"""

from __future__ import annotations

import os
import sys

import numpy as np

sys.path.append(os.environ["BENCH_TORCH"])  # last: what the server's own environment has comes first

import torch
from torch import nn

torch.set_num_threads(1)


def _loaded() -> nn.Module:
    module = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1600, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    weights = torch.load(os.environ["BENCH_WEIGHTS"], weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    return module.eval()


MODULE = _loaded()


def forward(images: np.ndarray) -> np.ndarray:
    """Images (rows, 1, 28, 28) to logits (rows, 10)."""
    with torch.inference_mode():
        return MODULE(torch.from_numpy(np.ascontiguousarray(images))).numpy()
