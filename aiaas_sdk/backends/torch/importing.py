"""Language models of others as bundles: their weights, plain facts and tokenizer. No code of theirs is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.backends.torch import weights
from aiaas_sdk.backends.torch.rebuilding import rebuild
from aiaas_sdk.backends.torch.saving import Facts, write
from aiaas_sdk.errors import BundleError, InputError, ModelNotFoundError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import datatype_of

__all__ = ["Found", "import_model"]

TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Found:
    """A model of others in our words: the arguments and weights of a `Transformer`, and how it reads text."""

    config: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    language: bundle.Language
    beside: Mapping[str, bytes]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def import_model(source: Path, target: Path, *, name: str | None = None, version: int | None = None) -> bundle.Located:
    """Write a model of others as the next version of the bundle at `target`.

    Args:
        source: a Hugging Face folder (config.json, *.safetensors, tokenizer.json) of a Llama-like decoder or a
            BERT-like encoder; or a GGUF file of a Llama-like decoder.
        target: the bundle's folder; its last part is the name unless `name` is given.
        version: a number that isn't there yet; None takes the next one.

    Raises:
        ModelNotFoundError: there is no such folder or file. InputError: it is something else.
        UnsupportedOperationError: a model of a kind that isn't known here.
        BundleError: it is damaged, or its weights don't fit its own facts.
        BackendNotInstalledError: reading it needs an extra.
    """
    found = _read(source)
    module: Any = rebuild(Transformer, found.config, found.state, weights.dtype_of(found.state), str(source))
    inputs, outputs = _signature(module)
    facts = Facts(
        name=name or bundle.own_name(target),
        inputs=inputs,
        outputs=outputs,
        dtype=weights.dtype_of(found.state),
        architecture=bundle.Architecture(name="transformer", config=dict(module.config)),
        language=found.language,
        metadata=found.metadata,
        lineage={"imported": source.name},
    )
    files = {bundle.WEIGHTS: weights.to_bytes(found.state), **found.beside}
    return write(target, files, facts, version)


def _read(source: Path) -> Found:
    from aiaas_sdk.backends.torch import ggufs, huggingface

    if source.is_dir():
        return huggingface.read(source)
    if not source.exists():
        raise ModelNotFoundError(f"there is no {source}")
    if source.suffix.lower() != ".gguf":
        hint = "Give a Hugging Face folder or a .gguf file"
        raise InputError(f"{source} is no model that can be imported", hint=hint)
    return ggufs.read(source)


def _signature(module: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The inputs and outputs, as a first call shows them; its numbers must be some."""
    example = module.example
    with torch.no_grad():
        answer = module(**example)
    for output, tensor in answer.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"the imported model's {output} isn't finite: its weights can't be right")
    inputs = [TensorSpec(key, datatype_of(tensor), (-1, -1)) for key, tensor in example.items()]
    outputs = [
        # the axes are rows, then tokens unless there is one vector a row, then what the model is wide
        TensorSpec(key, datatype_of(tensor), (*(-1,) * (tensor.ndim - 1), tensor.shape[-1]))
        for key, tensor in answer.items()
    ]
    return inputs, outputs
