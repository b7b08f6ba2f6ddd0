"""One token out of a model's logits."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Sampler", "logprobs_of"]

COLD = 1e-6
"""Below this temperature, dividing by it would leave float32, and only the likeliest token has a share."""
FEW = 512
"""The likeliest tokens, which mostly reach `top_p`."""
_DRAWS = ("top_p", "top_k", "seed")
"""Who gives one of these wants tokens to be drawn, and not the likeliest each time."""


class Sampler:
    """Draws the tokens of one answer.

    Temperature 0 takes the likeliest token. Else the logits are divided by the temperature; the `top_k` likeliest are
    kept, and of those the likeliest that reach `top_p` together; one is drawn by its share (Holtzman et al. 2019,
    "The Curious Case of Neural Text Degeneration"). Without a temperature it is 0, or 1 where something else says that
    tokens are to be drawn.

    The random numbers are this answer's own: from its seed and its number, whatever else runs beside it.

    Args:
        options: the options of `Sampling` that were given.
        number: of this answer, of those that were asked for together.
    """

    def __init__(self, options: Mapping[str, Any], number: int = 0) -> None:
        drawn = any(name in options for name in _DRAWS) or options.get("n", 1) > 1
        self.temperature: float = options.get("temperature", 1.0 if drawn else 0.0)
        self._top_k: int | None = options.get("top_k")
        self._top_p: float = options.get("top_p", 1.0)
        seed = options.get("seed")
        self._random = random.Random(os.urandom(16) if seed is None else f"{seed}:{number}")

    @property
    def greedy(self) -> bool:
        return self.temperature < COLD or self._top_k == 1

    def draw(self, logits: Tensor) -> int:
        """The token; logits are (vocabulary,)."""
        if self.greedy:
            return int(logits.argmax())
        values, ids, whole = self._candidates(logits.float() / self.temperature)
        shares = (values.double() - whole).exp()
        reached = shares.cumsum(-1)
        if self._top_p < 1:
            reached = reached[: max(1, int((reached - shares < self._top_p).sum()))]
        # a number above 0, or a token without any share could be drawn
        at = (1.0 - self._random.random()) * float(reached[-1])
        place = min(int(torch.searchsorted(reached, at)), len(reached) - 1)
        return place if ids is None else int(ids[place])

    def _candidates(self, scaled: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """The logits that may be drawn, their ids unless they are all in order, and the logarithm of their sum."""
        if self._top_k is not None and self._top_k < len(scaled):
            values, ids = scaled.topk(self._top_k)
            return values, ids, values.double().logsumexp(-1)
        whole = scaled.double().logsumexp(-1)
        if self._top_p == 1:
            return scaled, None, whole
        values, ids = scaled.topk(min(FEW, len(scaled)))
        if float((values.double() - whole).exp().sum()) < self._top_p:  # it takes more of them, so order them all
            values, ids = scaled.sort(descending=True)
        return values, ids, whole


def logprobs_of(logits: Tensor, token: int, others: int) -> tuple[float, list[tuple[int, float]]]:
    """The logarithm of the token's probability, and those of the likeliest, as the model itself gives them."""
    found = logits.float().log_softmax(-1)
    values, ids = found.topk(others) if others else (found[:0], found[:0])
    return float(found[token]), list(zip(map(int, ids.tolist()), values.tolist(), strict=True))
