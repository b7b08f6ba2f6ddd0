"""Where a version comes from, as its manifest says it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aiaas_sdk._version import __version__
from aiaas_sdk.records.training import Fit

__all__ = ["key", "lineage", "new_seed", "settings", "versions"]

BESIDE_THE_POINT = ("resume", "checkpoint", "checkpoint_steps", "checkpoint_seconds", "tensorboard", "workers")
"""Settings that don't change what comes out."""


def settings(fit: Fit) -> dict[str, Any]:
    """What decides the result, as plain values; a function by its name."""
    found = dict(vars(fit))
    for name in BESIDE_THE_POINT:
        del found[name]
    for name in ("optimizer", "loss"):
        if callable(found[name]):
            told = getattr(found[name], "__qualname__", type(found[name]).__name__)
            found[name] = f"{getattr(found[name], '__module__', '')}.{told}"
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def key(parent: str, fit: Fit, data: Mapping[str, Any]) -> str:
    """A short name of runs with this parent (its digest), these settings and these rows."""
    return hashlib.sha256(json.dumps([parent, settings(fit), data], sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what computed."""
    return {
        "aiaas-sdk": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def lineage(
    parent: Mapping[str, str], fit: Fit, seed: int, data: Mapping[str, Any], ended: Mapping[str, Any]
) -> dict[str, Any]:
    """What the new version says.

    Args:
        parent: `version` and `digest` of the version that was trained.
        seed: that was drawn with, whether it was given or not.
        data: `rows`, `digest` and the validation's, where they are known.
        ended: `epochs`, `steps`, `seconds`, `losses`, and the last value of each metric.
    """
    return {
        "parent": dict(parent),
        "data": dict(data),
        "settings": {**settings(fit), "seed": seed, "workers": fit.workers},
        "training": dict(ended),
        "versions": versions(),
    }


def new_seed() -> int:
    return int.from_bytes(os.urandom(4), "little")
