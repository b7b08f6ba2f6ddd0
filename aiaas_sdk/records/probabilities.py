"""Scores to probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["probabilities"]


def probabilities(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Softmax over the last axis, in float64; rows that are probabilities already stay as they are."""
    values = np.asarray(scores, dtype=np.float64)
    if values.size and (values >= 0).all() and np.allclose(values.sum(axis=-1), 1.0, atol=1e-3):
        return values
    powers = np.exp(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result
