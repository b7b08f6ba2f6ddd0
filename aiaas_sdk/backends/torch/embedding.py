"""Texts as vectors, with an encoder of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch.generation import tokenizer_of
from aiaas_sdk.backends.torch.tokenizing import Tokenizer
from aiaas_sdk.errors import BundleError, UnsupportedOperationError
from aiaas_sdk.records.chat import Embedded

__all__ = ["Encoder"]

TOKENS = 4096
"""Of a batch, with padding."""


class Encoder:
    """Mean of the last layer over a text's tokens, of length 1: what an encoder of `Transformer` gives."""

    def __init__(
        self,
        language: bundle.Language,
        beside: Mapping[str, bytes | bytearray],
        module: Any,
        device: torch.device,
        where: str,
    ) -> None:
        self._tokenizer = tokenizer_of(language, beside, where)
        if self._tokenizer.size > module.vocabulary:
            raise BundleError(f"{where}: the tokenizer has more tokens than the model, {module.vocabulary}")
        self._module, self._device, self._limit = module, device, language.context

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        """float32 (texts, width), in the order of the texts; a longer text is cut at the model's limit."""
        tokens = self._tokenizer.encode_batch(texts, self._limit)
        # texts of like length together: least padding
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        vectors: list[np.ndarray] = [np.empty(0)] * len(tokens)
        for batch in _batches(order, [len(ids) for ids in tokens]):
            for place, vector in zip(batch, self._encoded([tokens[place] for place in batch]), strict=True):
                vectors[place] = vector
        array = np.stack(vectors)
        if dimensions not in (None, array.shape[1]):
            raise UnsupportedOperationError(
                f"this model's vectors have {array.shape[1]} dimensions, and mean nothing cut to {dimensions}",
                hint="Leave dimensions= out",
            )
        return Embedded(array, sum(map(len, tokens)))

    def _encoded(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        longest = max(1, *map(len, tokens)) if len(tokens) > 1 else max(1, len(tokens[0]))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
        with torch.inference_mode():
            answer = self._module(ids.to(self._device), mask.to(self._device))["embedding"]
        return answer.float().cpu().numpy()  # type: ignore[no-any-return]


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The places in this order, cut where a batch would have more than `TOKENS`; the last of one is its longest."""
    found: list[list[int]] = []
    for place in order:
        if found and (len(found[-1]) + 1) * lengths[place] <= TOKENS:
            found[-1].append(place)
        else:
            found.append([place])
    return found
