"""A bundle whose model takes as many seconds as its first input says above 1000."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np


def save_slow(path: Path) -> Path:
    import torch

    import aiaas_sdk as aiaas

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            most = float(x.max()) if len(x) else 0.0
            if most > 1000:
                time.sleep(most - 1000)
            return x * 1

    aiaas.architecture(f"slow-{path.parent.name}")(Slow)
    aiaas.save(Slow(), path, example=np.zeros((1, 1), np.float32), architecture=f"slow-{path.parent.name}")
    return path
