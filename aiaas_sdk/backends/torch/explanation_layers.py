"""The layers that an explanation looks at, in a twin of the module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn

from aiaas_sdk.architectures.attention import Attention
from aiaas_sdk.architectures.transformer import Transformer

__all__ = ["attentions", "before_logits", "embedding_of", "has_convolution", "last_map", "twin"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BETWEEN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Dropout, nn.Dropout2d)
"""What may stand between a convolution and its activation; behind that it would shift what was let through."""
ACTIVATIONS = (
    nn.ELU,
    nn.GELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
)


def twin(module: nn.Module, *, full: bool = False) -> nn.Module:
    """The same module with the same weights, whose hooks are its own; `full`: those of half precision as float32."""
    tensors = chain(module.parameters(), module.buffers())
    shared: dict[int, Any] = {id(tensor): _full(tensor) if full else tensor for tensor in tensors}
    return copy.deepcopy(module, shared)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        return tensor
    return nn.Parameter(tensor.float(), False) if isinstance(tensor, nn.Parameter) else tensor.float()


def before_logits(module: nn.Module) -> nn.Module | None:
    """Of a decoder what gives the vectors (rows, tokens, width) that its logits are made of, each of its own."""
    return module.stack if isinstance(module, Transformer) and module.shape.kind == "decoder" else None


def embedding_of(module: nn.Module | None) -> nn.Embedding | None:
    """What makes vectors of tokens: the module's first embedding."""
    if module is None:
        return None
    return next((part for part in module.modules() if isinstance(part, nn.Embedding)), None)


def attentions(module: nn.Module) -> list[Attention]:
    """The layers of attention that the inputs go through first: of an encoder and a decoder the encoder's."""
    first = getattr(module, "encoder", None)
    root = first if isinstance(first, nn.Module) else module
    return [part for part in root.modules() if isinstance(part, Attention)]


def has_convolution(module: nn.Module) -> bool:
    return any(isinstance(part, CONVOLUTIONS) for part in module.modules())


def last_map(module: nn.Module, run: Callable[[], torch.Tensor]) -> nn.Module | None:
    """What gives the last map of features that an answer is made of: a convolution, or the activation right behind it.

    Convolutions that only lead to other outputs, as in a head of their own, don't count. What an activation lets
    through is what counts for the answer; before it, a map of values below zero would hide it.
    """
    seen: list[tuple[nn.Module, Any, Any]] = []
    hooks = [
        part.register_forward_hook(lambda part, given, came: seen.append((part, given[:1], came)))
        for part in module.modules()
        if not any(part.children())
    ]
    try:
        answer = run()
    finally:
        for hook in hooks:
            hook.remove()
    last = next((place for place in reversed(range(len(seen))) if _leads_to(answer, *seen[place][::2])), None)
    if last is None:
        return None
    found, _, before = seen[last]
    for part, given, after in seen[last + 1 :]:
        if getattr(after, "shape", None) != before.shape:
            break
        if isinstance(part, ACTIVATIONS):
            return part
        if not isinstance(part, BETWEEN) or given[0] is not before:  # an activation that is no module came first
            break
        found, before = part, after
    return found


def _leads_to(answer: torch.Tensor, part: nn.Module, came: Any) -> bool:
    """Whether a convolution's map changes an answer."""
    if not isinstance(part, CONVOLUTIONS):
        return False
    return torch.autograd.grad(answer.sum(), came, retain_graph=True, allow_unused=True)[0] is not None
