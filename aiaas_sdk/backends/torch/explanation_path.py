"""Integrated gradients, with captum, on a way from a baseline that is cut where it is uneven.

What is explained changes by as much on each piece of the way as the attributions there must add up to: where they
miss that, the piece is halved. A deep language model jumps within a hundredth of its way, and points that are spread
evenly over all of it don't see that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Way", "integrated"]

PIECES, POINTS = 4, 16
"""Of the way at first, and gradients that are taken on each piece (Gauss-Legendre)."""
MOST = 1024
"""Gradients that are taken for a row."""
TOLERANCE = 5e-4
"""By how much its attributions may miss what they should add up to, or that share of a tenth where it is below that."""
ROUNDING = 64
"""Two values of a function are as exact as this many of their dtype's smallest steps: no piece is halved for less."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way of each row from its baseline to itself.

    Attributes:
        score: as captum calls it: what is walked, then the others; it gives (rows,), or (rows, targets).
        there, here: the baseline and the inputs, or the vectors of their tokens.
        others: what stays as it is.
        targets: of each row.
        at_once: rows of one pass.
    """

    score: Callable[..., torch.Tensor]
    there: Sequence[torch.Tensor]
    here: Sequence[torch.Tensor]
    others: Sequence[torch.Tensor]
    targets: torch.Tensor | None
    at_once: int

    def values(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What is explained, at places from 0 (the baseline) to 1, float64."""
        found = []
        with torch.no_grad():
            for some, at in zip(rows.split(self.at_once), places.split(self.at_once), strict=True):  # type: ignore[no-untyped-call]
                scores = self.score(*self._at(some, at), *(other[some] for other in self.others))
                if self.targets is not None:
                    scores = scores[torch.arange(len(some), device=scores.device), self.targets[some]]
                found.append(scores.cpu().double())
        return torch.cat(found)

    def attributed(self, rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> list[torch.Tensor]:
        """The attributions of pieces of the way, each of a row of its own."""
        step = max(1, self.at_once // POINTS)
        parts = [self._piece(*part) for part in zip(rows.split(step), low.split(step), high.split(step), strict=True)]  # type: ignore[no-untyped-call]
        return [torch.cat(one) for one in zip(*parts, strict=True)]

    def _piece(self, rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> list[torch.Tensor]:
        from captum.attr import IntegratedGradients

        found = IntegratedGradients(self.score).attribute(
            tuple(value.requires_grad_() for value in self._at(rows, high)),
            baselines=self._at(rows, low),
            target=None if self.targets is None else self.targets[rows],
            additional_forward_args=tuple(other[rows] for other in self.others) or None,
            n_steps=POINTS,
            internal_batch_size=self.at_once,
        )
        # what stands at the baseline has no share, also where the gradient is infinite there
        ends = zip(found, self.there, self.here, strict=True)
        return [torch.where(there[rows] == here[rows], 0, one.detach()) for one, there, here in ends]

    def _at(self, rows: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.lerp(there[rows], here[rows], places.to(here).reshape(-1, *(1,) * (here.ndim - 1)))
            for there, here in zip(self.there, self.here, strict=True)
        )


def integrated(way: Way) -> tuple[list[torch.Tensor], float]:
    """The attributions, and by how much the worst row's miss f(x) - f(baseline)."""
    count = len(way.here[0])
    rows = torch.arange(count).repeat_interleave(PIECES)
    low = (torch.arange(PIECES) / PIECES).double().repeat(count)
    high = low + 1 / PIECES
    edges = way.values(torch.arange(count).repeat_interleave(PIECES + 1), _edges().repeat(count))
    edges = edges.reshape(count, PIECES + 1)
    begins, ends = edges[:, :-1].flatten(), edges[:, 1:].flatten()
    allowed = TOLERANCE * (edges[:, -1] - edges[:, 0]).abs().clamp(min=0.1)
    rounding = ROUNDING * torch.finfo(way.here[0].dtype).eps
    found = [torch.zeros_like(one) for one in way.here]
    missed, sizes, spent = (torch.zeros(count, dtype=torch.float64) for _ in range(3))
    while len(rows):
        came = way.attributed(rows, low, high)
        wrong = _summed(came) - (ends - begins)
        spent.index_add_(0, rows, torch.full_like(wrong, POINTS))
        total = sizes.index_add(0, rows, wrong.abs())
        least = allowed[rows] * (high - low) + rounding * torch.maximum(begins.abs(), ends.abs())
        uneven = _affordable(rows, wrong.abs(), (total > allowed)[rows] & (wrong.abs() > least), spent)
        even = ~uneven
        for whole, part in zip(found, came, strict=True):
            whole.index_add_(0, rows[even].to(whole.device), part[even.to(part.device)])
        missed.index_add_(0, rows[even], wrong[even])
        sizes.index_add_(0, rows[even], wrong[even].abs())
        rows, low, high, begins, ends = _halved(way, *(one[uneven] for one in (rows, low, high, begins, ends)))
    return found, float(missed.abs().max())


def _edges() -> torch.Tensor:
    return (torch.arange(PIECES + 1) / PIECES).double()


def _summed(found: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([one.cpu().double().reshape(len(one), -1).sum(1) for one in found]).sum(0)


def _affordable(rows: torch.Tensor, sizes: torch.Tensor, uneven: torch.Tensor, spent: torch.Tensor) -> torch.Tensor:
    """Of the uneven pieces those that a row may still halve, the worst first."""
    found = torch.zeros_like(uneven)
    for row in rows[uneven].unique().tolist():  # type: ignore[no-untyped-call]
        own = torch.nonzero(uneven & (rows == row)).flatten()
        ranked = own[sizes[own].argsort(descending=True)]
        found[ranked[: max(0, int(MOST - spent[row]) // (2 * POINTS))]] = True
    return found


def _halved(
    way: Way, rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    if not len(rows):
        return rows, low, high, begins, ends
    middle = (low + high) / 2
    between = way.values(rows, middle)
    pairs = ((rows, rows), (low, middle), (middle, high), (begins, between), (between, ends))
    return tuple(torch.cat(pair) for pair in pairs)
