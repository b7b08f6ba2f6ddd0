"""The yardstick: the least that uvicorn can do with a body. Usage: bare.py PORT"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import uvicorn
from digits import forward


async def app(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/digits":
        body = forward(np.frombuffer(body, np.float32).reshape(-1, 1, 28, 28)).tobytes()
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
