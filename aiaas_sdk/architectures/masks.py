"""Rows of different lengths in one batch: which steps of a row are its own."""

from __future__ import annotations

import torch
from torch import Tensor

from aiaas_sdk.errors import InputError

__all__ = ["check_tokens", "steps_of"]


def steps_of(mask: Tensor, rows: int, steps: int) -> Tensor:
    """Which steps are a row's own: bool (rows, steps).

    Args:
        mask: (rows, steps), 1 (or True) where a row has a step, then 0 to the end.

    Raises:
        InputError: it has another shape, a row has no step, or a step after a gap.
    """
    if tuple(mask.shape) != (rows, steps):
        raise InputError(f"mask has the shape {list(mask.shape)}; it is (rows, steps), here {[rows, steps]}")
    there = mask != 0
    if torch.compiler.is_exporting():  # a program can't depend on what the mask holds
        return there
    if not bool(there[:, :1].all()) or bool((there[:, 1:] & ~there[:, :-1]).any()):
        raise InputError("mask: each row has 1 for its steps, one at least, and then 0 to the end")
    return there


def check_tokens(ids: Tensor, vocabulary: int, name: str) -> None:
    """A wrong id would be a crash that says nothing, and on CUDA the end of the process's context."""
    if ids.ndim != 2 or ids.shape[1] < 1 or ids.is_floating_point():
        raise InputError(f"{name}: token ids of shape {list(ids.shape)}; it takes whole numbers, (rows, tokens)")
    if torch.compiler.is_exporting():
        return
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise InputError(f"{name}: a token id isn't from 0 to {vocabulary - 1}")
