"""KServe's model server. Usage: kserve_app.py PORT"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from digits import forward
from kserve import InferOutput, InferResponse, Model, ModelServer

CONFIG = uvicorn.Config


class Served(Model):
    def __init__(self, name: str, function: Any) -> None:
        super().__init__(name)
        self._function = function
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> InferResponse:
        result = self._function(payload.inputs[0].as_numpy())
        y = InferOutput("y", list(result.shape), "FP32")
        y.set_data_from_numpy(result, binary_data=True)
        return InferResponse(payload.id, self.name, [y], requested_outputs=payload.request_outputs)


def on_this_machine(*args: Any, **options: Any) -> uvicorn.Config:
    return CONFIG(*args, **{**options, "host": "127.0.0.1", "access_log": False})


if __name__ == "__main__":
    uvicorn.Config = on_this_machine  # it would listen everywhere
    server = ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1, enable_latency_logging=False)
    server.start([Served("tiny", lambda x: x), Served("digits", forward)])
