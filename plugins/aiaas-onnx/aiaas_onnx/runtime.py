"""onnxruntime, imported here alone: from 1.29 on it tells its makers about each process and model unless a variable
says no before it is imported. Its thread for that would also keep a forked child from ending. Who wants it sets
`ORT_DISABLE_TELEMETRY=0`.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
