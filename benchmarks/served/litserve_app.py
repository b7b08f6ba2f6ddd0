"""LitServe's server. Usage: litserve_app.py PORT"""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np


class Tiny(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._forward: Any = lambda x: x

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # a type would be one of FastAPI's parameters
        return np.asarray(request["x"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._forward(x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"y": output.tolist()}


class Digits(Tiny):
    def setup(self, device: str) -> None:
        from digits import forward

        self._forward = forward


if __name__ == "__main__":
    options = {"max_batch_size": 64, "batch_timeout": 0.001}
    apis = [Tiny(api_path="/tiny", **options), Digits(api_path="/digits", **options)]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=30)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
