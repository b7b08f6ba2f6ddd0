"""Attention rollout: how much of each input token arrives at the end of a Transformer.

Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers": of each layer the mean of its heads, half of it
and half of the residual connection, multiplied from layer to layer. Each row of the product sums to 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aiaas_sdk.backends.torch.explanation_layers import attentions
from aiaas_sdk.backends.torch.explanation_scores import MASK, Scorer
from aiaas_sdk.errors import InputError

__all__ = ["rollout"]


def rollout(module: nn.Module, scorer: Scorer) -> tuple[str, torch.Tensor]:
    """The name of the input that the first tokens are made of, and what the answer has of each of its elements.

    For token ids (rows, tokens), which sums to 1 a row. For images their shape, where each element of a square has what
    the answer has of the square; with a class vector of the model's own, that has the rest of the 1.
    """
    shape: Any = getattr(module, "shape", None)
    shares = _looked_from(flow_of(_weights(module, scorer)), scorer, shape)
    if getattr(shape, "kind", None) == "vision":
        return _on_image(shares, scorer, shape)
    scorer.check_tokens(shares.shape[1])
    return scorer.ids_name, shares


def _looked_from(flow: torch.Tensor, scorer: Scorer, shape: Any) -> torch.Tensor:
    """(rows, tokens): of the place that the answer is made at: the last, the first, or the mean of all."""
    mask = scorer.inputs.get(MASK)
    counted = torch.ones(flow.shape[:2], device=flow.device) if mask is None else mask.to(flow.dtype)
    if getattr(shape, "kind", None) == "decoder":
        last = counted.sum(1).long().clamp(min=1) - 1
        return flow[torch.arange(len(flow), device=flow.device), last]
    if getattr(shape, "pool", None) == "cls":
        return flow[:, 0]
    shares = counted / counted.sum(1, keepdim=True).clamp(min=1)
    return (shares[:, None] @ flow)[:, 0]


def _on_image(shares: torch.Tensor, scorer: Scorer, shape: Any) -> tuple[str, torch.Tensor]:
    name = scorer.floats[0]
    images = scorer.inputs[name]
    high, wide = (size // shape.patch for size in images.shape[2:])
    squares = shares[:, -high * wide :].reshape(-1, 1, high, wide)  # the class vector stands first
    spread = squares.repeat_interleave(shape.patch, 2).repeat_interleave(shape.patch, 3)
    return name, spread.expand(images.shape)


def flow_of(layers: list[torch.Tensor]) -> torch.Tensor:
    """The product over layers of half the attention (rows, heads, tokens, tokens) and half of what stays."""
    first = layers[0]
    one = torch.eye(first.shape[-1], device=first.device, dtype=torch.float32)
    found = one.expand(len(first), -1, -1)
    for weights in layers:
        found = (0.5 * weights.float().mean(1) + 0.5 * one) @ found
    return found


def _weights(module: nn.Module, scorer: Scorer) -> list[torch.Tensor]:
    """The attention of each layer of one pass, in order."""
    found: list[torch.Tensor] = []

    def note(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(given) == 1 or given[1] is None:  # to the tokens themselves
            found.append(layer.weights(given[0], mask=named["mask"], causal=named["causal"], rotate=named["rotate"]))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in attentions(module)]
    try:
        with torch.no_grad():
            scorer.run()
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InputError("attention_rollout found no attention at work")
    return found
