"""Batch normalisation over the rows of all processes.

PyTorch's own (`SyncBatchNorm`) is for GPUs alone, and counts a row that a process only borrowed; this one is for all
devices. With n rows in all, mean = sum x / n and var = sum (x - mean)^2 / n, both sums over all processes; gradients go
through both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["together"]


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of all their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        found = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        found = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(found)
        return found


class Shared(_BatchNorm):
    """A batch normalisation whose training statistics are of all processes.

    Args:
        origin: its parameters, buffers and settings are taken over.
        borrowed: whether the row of the batch just now isn't this process's own.
    """

    def __init__(self, origin: _BatchNorm, borrowed: Callable[[], bool]) -> None:
        super().__init__(origin.num_features, origin.eps, origin.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = origin.affine, origin.track_running_stats
        self.weight, self.bias = origin.weight, origin.bias
        self.running_mean, self.running_var = origin.running_mean, origin.running_var
        self.num_batches_tracked = origin.num_batches_tracked
        self.training = origin.training
        self._check, self._borrowed = type(origin)._check_input_dim, borrowed

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        mean, var, count = self._statistics(input.float() if input.dtype.itemsize < 4 else input)
        if self.training and self.running_mean is not None:
            self._remember(mean.detach(), var.detach(), count)
        shape = [1, -1, *[1] * (input.ndim - 2)]
        factor = torch.rsqrt(var + self.eps)
        shift = -mean * factor
        if self.weight is not None:
            factor, shift = factor * self.weight, shift * self.weight + self.bias
        return (input * factor.reshape(shape) + shift.reshape(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        self._check(self, input)  # type: ignore[no-untyped-call]

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(values.ndim) if axis != 1]
        share = 0.0 if self._borrowed() else 1.0
        here = torch.full((1,), share * values.numel() / values.shape[1], dtype=values.dtype, device=values.device)
        sums = _total(torch.cat((values.sum(axes) * share, here)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        apart = values - mean.reshape([1, -1, *[1] * (values.ndim - 2)])
        var = _total((apart * apart).sum(axes) * share) / count
        return mean, var, count

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var * count / (count - 1).clamp(min=1)).to(self.running_var.dtype), share)


def _total(value: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return found


def together(module: nn.Module, borrowed: Callable[[], bool]) -> nn.Module:
    """The module with its batch normalisations replaced; the names of its tensors stay."""
    if isinstance(module, _BatchNorm):
        return Shared(module, borrowed)
    for name, child in module.named_children():
        found = together(child, borrowed)
        if found is not child:
            setattr(module, name, found)
    return module
