"""Inputs for a signature: drawn at random, the same for the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.records.model import TensorSpec

__all__ = ["WORDS", "drawn", "seed_of", "shape_of"]

SIDE = 3
"""The size of a free axis that isn't rows."""
WORDS = (b"one", "zwölf".encode(), b"four words of text", b"5")


def seed_of(name: str) -> int:
    """The seed that belongs to a name: each check asks with numbers of its own."""
    return zlib.crc32(name.encode())


def shape_of(spec: TensorSpec, rows: int, *, rows_free: bool) -> tuple[int, ...]:
    """A shape for a signature's: its first axis is `rows` where that is what it means."""
    free = [SIDE if size == -1 else size for size in spec.shape]
    return (rows, *free[1:]) if rows_free else tuple(free)


def drawn(specs: Sequence[TensorSpec], rows: int, seed: int, *, rows_free: bool = True) -> dict[str, Any]:
    """Arrays for the inputs, as a numpy caller gives them.

    Floats are multiples of 1/8 between -8 and 8, which every float datatype holds; integers lie between 0 and 99.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _array(spec.datatype, shape_of(spec, rows, rows_free=rows_free), generator) for spec in specs}


def _array(datatype: str, shape: tuple[int, ...], generator: np.random.Generator) -> npt.NDArray[Any]:
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(np.bool_)
    if datatype == "BYTES":
        words = np.empty(len(WORDS), object)
        words[:] = WORDS
        return np.asarray(words[generator.integers(0, len(WORDS), shape)], object).reshape(shape)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        dtype = {"FP16": np.float16, "FP64": np.float64}.get(datatype, np.float32)
        return (generator.integers(-64, 65, shape) / 8).astype(dtype)
    name = datatype.lower()
    return generator.integers(0, 100, shape).astype(name)
