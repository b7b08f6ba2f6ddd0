"""Texts to classes: what `predict` does with a model for sequence classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor, storage
from aiaas_transformers.embedding import batches, limit_of, padded

__all__ = ["Classifier"]

TEXT = "text"


class Classifier:
    """Texts (BYTES, a row each) become the probabilities of their classes, float32.

    Each row sums to 1; of a model for several labels at once (`multi_label_classification`) each class has its own
    probability. A model with one class gives its score, untouched.
    """

    def __init__(self, module: Any, tokenizer: Any, device: torch.device, folder: Path) -> None:
        self._module, self._tokenizer, self._device = module, tokenizer, device
        config = module.config
        self.labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        self._each = config.problem_type == "multi_label_classification"
        self._limit = limit_of(config, tokenizer, folder)
        self._output = "score" if len(self.labels) == 1 else "probabilities"
        if tokenizer.pad_token_id is not None and config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id  # a decoder looks for the last token before it

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(TEXT, "BYTES", (-1,)),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self._output, "FP32", (-1, len(self.labels))),)

    def predict(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        texts = [_text(element) for element in storage(inputs[TEXT])]
        found = np.empty((len(texts), len(self.labels)), np.float32)
        if texts:
            tokens = self._tokenizer(texts, truncation=True, max_length=self._limit)["input_ids"]
            for places in batches([len(ids) for ids in tokens]):
                found[places] = self._scored([tokens[place] for place in places])
        return {self._output: Tensor("FP32", found)}

    def _scored(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        ids, mask = padded(tokens, self._tokenizer.pad_token_id or 0, self._device)
        with torch.inference_mode():
            logits = self._module(input_ids=ids, attention_mask=mask).logits.float()
            if self._each:
                logits = logits.sigmoid()
            elif len(self.labels) > 1:
                logits = logits.softmax(-1)
        return logits.cpu().numpy()  # type: ignore[no-any-return]


def _text(element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InputError(f"input {TEXT!r} holds bytes that aren't UTF-8") from None
