"""Modules that are too large to stand on each device whole: FSDP2 keeps a part of each tensor in each process.

What is imported here is imported when it is used: it takes a second, and most modules fit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aiaas_sdk import machine

__all__ = ["like", "memory", "shard", "too_large", "whole"]

COPIES = 4
"""Of each weight while it is trained: itself, its gradient, and two numbers of the optimizer."""


def memory(device: torch.device, world: int) -> int:
    """Bytes that each of so many processes has on such a device."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine.memory() // world


def too_large(module: nn.Module, available: int) -> bool:
    """Whether weights, gradients and the optimizer's state would take more than half of the memory."""
    return COPIES * sum(p.numel() * p.element_size() for p in module.parameters()) > available // 2


def shard(module: nn.Module, device: torch.device, world: int) -> nn.Module:
    """Keep a part of it here: by the layers of its lists, which are whole only while they compute."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world,))
    for parent in list(module.modules()):
        if isinstance(parent, nn.ModuleList):
            for layer in parent:
                fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process has to ask for it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, kept: Tensor) -> Tensor:
    """The part of a whole tensor that this process keeps, as it keeps that of `kept`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(kept, DTensor) or isinstance(tensor, DTensor) or tensor.shape != kept.shape:
        return tensor
    return distribute_tensor(tensor.to(kept.device), kept.device_mesh, kept.placements)
