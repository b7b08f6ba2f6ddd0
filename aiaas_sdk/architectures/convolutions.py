"""Convolutions over time, of rows that may have different lengths: what a row gives doesn't depend on the others.

`there` is bool (rows, steps): which steps are a row's own; None where all are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from aiaas_sdk.architectures.activations import activation as named

__all__ = ["Series", "Windows"]


class _Same(nn.Conv1d):
    """A convolution that gives as many steps as it takes; beyond both ends there are zeros."""

    def forward(self, x: Tensor) -> Tensor:
        size = self.kernel_size[0]
        return super().forward(functional.pad(x, ((size - 1) // 2, size // 2)))


def _kept(x: Tensor, there: Tensor | None, other: float) -> Tensor:
    """Of (rows, channels, steps) what is there; the other steps hold a number that changes nothing."""
    return x if there is None else x.masked_fill(~there[:, None], other)


class Series(nn.Module):
    """One layer after the other: convolution, activation, the largest of each `pool` steps; at the end of all steps.

    LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", along one axis. From
    (rows, channels, steps) to (rows, filters[-1]).
    """

    def __init__(self, channels: int, filters: Sequence[int], kernel: int, pool: int, activation: str) -> None:
        super().__init__()
        self._pool = pool
        self.layers = nn.ModuleList(_Same(before, after, kernel) for before, after in pairwise((channels, *filters)))
        self.activation = named(activation)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = _kept(self.activation(layer(_kept(x, there, 0.0))), there, -torch.inf)
            # a last window that isn't full counts, so that short rows have one, too
            x = functional.max_pool1d(x, self._pool, ceil_mode=True)
            if there is not None:
                there = functional.max_pool1d(there[:, None].to(x.dtype), self._pool, ceil_mode=True)[:, 0] > 0
        return x.amax(2)


class Windows(nn.Module):
    """Convolutions of several sizes beside each other, each with the largest of its steps.

    `c_i = f(w . x_{i:i+h-1} + b)`, and of each filter `max(c)`: Kim 2014, "Convolutional Neural Networks for Sentence
    Classification"; windows reach over both ends, where there are zeros. From (rows, channels, steps) to
    (rows, filters x sizes).
    """

    def __init__(self, channels: int, filters: int, kernels: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Same(channels, filters, kernel) for kernel in kernels)
        self.activation = named(activation)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        x = _kept(x, there, 0.0)
        found = [_kept(self.activation(layer(x)), there, -torch.inf).amax(2) for layer in self.layers]
        return torch.cat(found, dim=1)
