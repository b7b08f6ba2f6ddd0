"""BentoML's service."""

from __future__ import annotations

import bentoml
import numpy as np
from digits import forward

OFF = {"enabled": False}


@bentoml.service(logging={"access": OFF}, metrics=OFF, traffic={"timeout": 30}, workers=1)
class Served:
    @bentoml.api
    async def tiny(self, x: np.ndarray) -> np.ndarray:
        return x

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def digits(self, x: np.ndarray) -> np.ndarray:
        return forward(x.astype(np.float32))
