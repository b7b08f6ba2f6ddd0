"""Occlusion of texts: what the next token, or a text's vector, loses without a token."""

from __future__ import annotations

import torch

from aiaas_sdk.backends.torch.explanation_scores import MASK, Scorer
from aiaas_sdk.explaining.occlusion import COLUMNS

__all__ = ["occluded"]


def occluded(scorer: Scorer, at_once: int) -> dict[str, torch.Tensor]:
    """Each token in its turn is the baseline's; of a text of more than 256, groups that share what they cost."""
    name = scorer.ids_name
    ids, empty = scorer.inputs[name], scorer.baseline([name])[name]
    width = -(-ids.shape[1] // COLUMNS)
    mask = scorer.inputs.get(MASK)
    there = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    begins = torch.arange(0, ids.shape[1], width, device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device)
    groups = (places >= begins[:, None]) & (places < begins[:, None] + width)  # (groups, tokens)
    pairs = torch.nonzero((groups[None] & there[:, None]).any(-1))
    found = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    with torch.no_grad():
        full = scorer.run()
        for part in pairs.split(at_once):  # type: ignore[no-untyped-call]
            rows, away = part[:, 0], groups[part[:, 1]] & there[part[:, 0]]
            cost = full[rows] - scorer.changed(rows, {name: torch.where(away, empty[rows], ids[rows])})
            found.index_add_(0, rows, away * (cost / away.sum(1))[:, None])
    return {name: found}
