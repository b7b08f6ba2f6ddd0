"""Memory for a reply's body."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

__all__ = ["aligned", "copied"]

ALIGNMENT = 64
"""Bytes; a cache line, and what AVX-512 likes."""


def aligned(size: int, before: int = 0) -> memoryview:
    """`size` bytes of which those after the first `before` start at a multiple of 64.

    The memory isn't touched: a large block takes room only as it is filled. Raises MemoryError.
    """
    block: Any = np.empty(size + ALIGNMENT, np.uint8)  # Any: numpy's stubs don't say that it is a buffer
    # an eighth of what numpy's own ways to the address cost
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    start = -(address + before) % ALIGNMENT
    return memoryview(block)[start : start + size]


def copied(body: bytes, before: int) -> memoryview:
    """A writable copy of a small body, of which what lies behind the first `before` bytes starts at a multiple of 16.

    That is as far as Python aligns what it allocates, and enough for every datatype; it costs a quarter of `aligned`.
    """
    pad = -before % _GRAIN
    return memoryview(bytearray(_PADS[pad] + body))[pad:]


_GRAIN = 16
_PADS = tuple(bytes(size) for size in range(_GRAIN))
