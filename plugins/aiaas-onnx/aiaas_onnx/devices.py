"""Where a model runs, and with how many threads."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from aiaas_sdk.errors import ConfigError

__all__ = ["CPU", "CUDA", "Provider", "check", "provider", "threads"]

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = tuple[str, dict[str, str]]
"""onnxruntime's name of what runs a model, and its options."""


def check(device: str | None) -> None:
    """ConfigError where no such device can be asked for."""
    if device is not None and not DEVICE.fullmatch(device):
        raise ConfigError(f"device is {device!r}", hint='Give "cpu", "cuda" or "cuda:1"')


def provider(device: str | None, available: Collection[str]) -> Provider:
    """CUDA where it is asked for, or where nothing is and onnxruntime has it; else the CPU."""
    if device == "cpu" or (device is None and CUDA not in available):
        return CPU, {}
    if CUDA not in available:
        raise ConfigError(
            f"device is {device}, and the onnxruntime that is installed has no CUDA",
            hint='Install onnxruntime-gpu in place of onnxruntime, or give device="cpu"',
        )
    return CUDA, {"device_id": (device or "").partition(":")[2] or "0"}


def threads(concurrency: int) -> int:
    """Threads of one call: the cores that this process may use, shared out among the calls that run at once.

    `OMP_NUM_THREADS` bounds them, as it bounds PyTorch's.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bound = os.environ.get("OMP_NUM_THREADS", "")
    if bound.isdecimal() and int(bound):
        cores = min(cores, int(bound))
    return max(1, cores // concurrency)
