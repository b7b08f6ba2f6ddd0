"""Texts as vectors, by the pooling that the model's own folder names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aiaas_sdk.errors import BundleError, UnsupportedOperationError
from aiaas_sdk.records.chat import Embedded
from aiaas_transformers.places import facts_of

__all__ = ["Encoder", "batches", "limit_of"]

TOKENS = 4096
"""Of a batch, with padding."""
POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}
_MODULES = ("Transformer", "Pooling", "Normalize")
"""Of sentence-transformers, by the last part of their names."""


class Encoder:
    """A module whose last layer's vectors of a text become one, of length 1 where the folder wants that.

    A folder that says nothing of it (no modules.json) gives the mean, of length 1.
    """

    def __init__(self, module: Any, tokenizer: Any, device: torch.device, folder: Path) -> None:
        self._module, self._tokenizer, self._device = module, tokenizer, device
        self.pooling, self._unit = _pooling(folder)
        self.limit = limit_of(module.config, tokenizer, folder)

    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        """float32 (texts, width), in the order of the texts; a longer text is cut at the model's limit."""
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self.limit)["input_ids"]
        vectors: list[Any] = [None] * len(tokens)
        for places in batches([len(ids) for ids in tokens]):
            for place, vector in zip(places, self._encoded([tokens[place] for place in places]), strict=True):
                vectors[place] = vector
        array = np.stack(vectors)
        if dimensions not in (None, array.shape[1]):
            raise UnsupportedOperationError(
                f"this model's vectors have {array.shape[1]} dimensions, and mean nothing cut to {dimensions}",
                hint="Leave dimensions= out",
            )
        return Embedded(array, sum(map(len, tokens)))

    def _encoded(self, tokens: Sequence[Sequence[int]]) -> Any:
        ids, mask = padded(tokens, self._tokenizer.pad_token_id or 0, self._device)
        with torch.inference_mode():
            hidden = self._module(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            found = _pooled(hidden, mask, self.pooling)
            if self._unit:
                found = torch.nn.functional.normalize(found, dim=-1)
        return found.cpu().numpy()


def padded(tokens: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of one length, padded on the right, and their mask."""
    longest = max(1, *map(len, tokens)) if len(tokens) > 1 else max(1, len(tokens[0]))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in tokens])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
    return ids.to(device), mask.to(device)


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """All places, those of like length together, cut where a batch would have more than `TOKENS`."""
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[place] <= TOKENS:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    if how == "first":
        return hidden[:, 0]
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), (mask.sum(1) - 1).clamp(min=0)]
    weights = mask[..., None].to(hidden.dtype)
    if how == "max":
        return hidden.masked_fill(weights == 0, -torch.inf).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)


# ---------------------------------------------------------------- what the folder says
def _pooling(folder: Path) -> tuple[str, bool]:
    """How vectors become one, and whether it has length 1."""
    path = folder / "modules.json"
    if not path.is_file():
        return "mean", True
    modules = _listed(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    others = [kind for kind in kinds if kind not in _MODULES]
    if others:
        raise UnsupportedOperationError(
            f"{folder} has the layer {others[0][:80]}", hint=f"Known are {', '.join(_MODULES)}"
        )
    paths = {kind: str(module.get("path", "")) for module, kind in zip(modules, kinds, strict=True)}
    told = facts_of(folder / Path(paths.get("Pooling", "")).name / "config.json")
    chosen = [name for name, on in told.items() if name.startswith("pooling_mode_") and on]
    if len(chosen) != 1 or chosen[0] not in POOLING:
        raise UnsupportedOperationError(
            f"{folder} pools by {', '.join(chosen) or 'nothing'}", hint=f"One of {', '.join(POOLING)} is known"
        )
    return POOLING[chosen[0]], "Normalize" in kinds


def _listed(path: Path) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise BundleError(f"{path} isn't a list of layers")
    return found


def limit_of(config: Any, tokenizer: Any, folder: Path) -> int:
    """The most tokens of a text: the least that the folder's files say."""
    told: Mapping[str, Any] = facts_of(folder / "sentence_bert_config.json")
    sizes = [told.get("max_seq_length"), tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    return min(size for size in (*sizes, 1 << 20) if isinstance(size, int) and size > 0)
