"""How tokens are drawn: by transformers' own rules, with random numbers that belong to one answer alone."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import torch

from aiaas_transformers.loading import transformers

__all__ = ["Draw", "Watch", "processors"]

COLD = 1e-6
_DRAWS = ("top_p", "top_k", "seed")


def processors(options: Mapping[str, Any]) -> list[Any]:
    """What turns logits into the one token that is taken; nothing where that is the likeliest.

    Temperature 0 takes the likeliest token. Without one it is 0, or 1 where top_p, top_k, a seed, or n above 1 say that
    tokens are to be drawn.
    """
    count = options.get("n", 1)
    drawn = count > 1 or any(name in options for name in _DRAWS)
    temperature = options.get("temperature", 1.0 if drawn else 0.0)
    if temperature < COLD or options.get("top_k") == 1:
        return []
    found: list[Any] = [transformers.TemperatureLogitsWarper(float(temperature))]
    if "top_k" in options:
        found.append(transformers.TopKLogitsWarper(options["top_k"]))
    if options.get("top_p", 1.0) < 1:
        found.append(transformers.TopPLogitsWarper(options["top_p"]))
    return [*found, Draw(options.get("seed"), count)]


class Draw(transformers.LogitsProcessor):
    """Draws a token of each row, and leaves no other.

    transformers itself draws from the process's one row of random numbers, which other calls take from, too.
    """

    def __init__(self, seed: int | None, count: int) -> None:
        self._rows = [_generator(seed, number) for number in range(count)]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        shares = scores.float().softmax(-1).cpu()
        chosen = [torch.multinomial(row, 1, generator=own) for row, own in zip(shares, self._rows, strict=True)]
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(1, torch.stack(chosen).to(scores.device), 0.0)


def _generator(seed: int | None, number: int) -> torch.Generator:
    source = random.Random(os.urandom(16) if seed is None else f"{seed}:{number}")
    return torch.Generator().manual_seed(source.getrandbits(63))


class Watch(transformers.LogitsProcessor):
    """Notes the logits of each step as they come, and changes nothing."""

    def __init__(self) -> None:
        self.logits: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits = scores
        return scores
