"""An untrained module of a registered architecture, an example of its input, and how it reads text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.architectures import class_of
from aiaas_sdk.backends.torch import chance
from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer, FileTokenizer, Tokenizer
from aiaas_sdk.errors import AiaasError, ConfigError, UnsupportedOperationError
from aiaas_sdk.tensors import DATATYPES

__all__ = ["Untrained", "untrained", "zeros"]

Inputs = Mapping[str, tuple[str, Sequence[int]]]
TOKENIZER = "tokenizer.json"
ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<eos>", "[SEP]")
"""Names of the token that ends an answer; the first that a tokenizer has is taken."""


@dataclass(frozen=True, slots=True)
class Untrained:
    """What `create` saves.

    Attributes:
        input_name: what the only input is called; None for the module's own name.
        beside: the files that `language` names.
    """

    module: torch.nn.Module
    example: Any
    input_name: str | None = None
    language: bundle.Language | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)


def untrained(
    architecture: str,
    *,
    config: Mapping[str, Any] | None,
    inputs: Inputs | None,
    labels: Sequence[str] | None,
    seed: int | None,
    tokenizer: str | None,
) -> Untrained:
    """The module and what belongs to it, as `aiaas_sdk.create` describes them."""
    cls = class_of(architecture)
    if tokenizer is None:
        module = _module(architecture, cls, config, inputs, labels, seed)
        name = next(iter(inputs)) if inputs and len(inputs) == 1 else None
        return Untrained(module, _example(architecture, module, inputs), name)
    if not hasattr(cls, "task"):
        raise UnsupportedOperationError(
            f"the architecture {architecture!r} has no use for a tokenizer", hint="Leave tokenizer= out"
        )
    reader, beside = _tokenizer(tokenizer)
    module = _module(architecture, cls, {"vocabulary": reader.size, **(config or {})}, inputs, labels, seed)
    language = _language(module, reader, bundle.BYTES if not beside else TOKENIZER)
    return Untrained(module, _example(architecture, module, inputs), None, language, beside)


def _module(
    architecture: str,
    cls: Any,
    config: Mapping[str, Any] | None,
    inputs: Inputs | None,
    labels: Sequence[str] | None,
    seed: int | None,
) -> torch.nn.Module:
    configure = getattr(cls, "configure", None)
    found = dict(configure(inputs, labels)) if configure is not None and inputs else {}
    arguments = {**found, **(config or {})}
    with chance.apart():  # the caller's own random numbers stay as they are
        if seed is not None:
            torch.manual_seed(seed)
        try:
            return cls(**arguments)  # type: ignore[no-any-return]
        except AiaasError:
            raise
        except Exception as error:
            given = f"of {', '.join(sorted(arguments))}" if arguments else "without config"
            raise ConfigError(
                f"the architecture {architecture!r} can't be made {given} ({type(error).__name__}: {error})",
                hint=f"Its config has {', '.join(inspect.signature(cls).parameters)}",
            ) from error


def _tokenizer(named: str) -> tuple[Tokenizer, Mapping[str, bytes]]:
    if named == bundle.BYTES:
        return ByteTokenizer(), {}
    try:
        data = Path(named).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the tokenizer {named!r} can't be read ({error.strerror})",
            hint='Give the path of a tokenizer.json, or "bytes"',
        ) from None
    return FileTokenizer(data, named), {TOKENIZER: data}


def _language(module: Any, tokenizer: Tokenizer, named: str) -> bundle.Language:
    if module.task is None:
        raise UnsupportedOperationError("this kind of model has no use for a tokenizer", hint="Leave tokenizer= out")
    if tokenizer.size > module.vocabulary:
        raise ConfigError(
            f"vocabulary is {module.vocabulary}, and the tokenizer has {tokenizer.size} tokens",
            hint="Leave vocabulary out of config=",
        )
    ends = [ByteTokenizer.end] if named == bundle.BYTES else [tokenizer.id_of(name) for name in ENDS]
    end = next(([token] for token in ends if token is not None), [])
    return bundle.Language(task=module.task, tokenizer=named, context=module.context, end=end)


def _example(architecture: str, module: torch.nn.Module, inputs: Inputs | None) -> Any:
    if not inputs:
        if (example := getattr(module, "example", None)) is not None:
            return example
        shape = getattr(module, "example_shape", None)
        if shape is None:
            raise ConfigError(
                f"the architecture {architecture!r} doesn't say what it takes",
                hint='Give inputs={"NAME": ("FP32", [-1, ...])}',
            )
        return torch.zeros(shape)
    free = _free({size for _, shape in inputs.values() for size in shape})
    example = {
        name: _seen(zeros(name, datatype, [*shape[:1], *(free if size == -1 else size for size in shape[1:])]))
        for name, (datatype, shape) in inputs.items()
    }
    return next(iter(example.values())) if len(example) == 1 else example


def _free(taken: set[int]) -> int:
    """A size of a free axis that no other axis has, so that `save` sees which axes grow together."""
    return next(size for size in range(4, 8 + len(taken)) if size not in taken)


def _seen(example: torch.Tensor) -> torch.Tensor:
    """Whole numbers are ones: a mask that hides everything is no example."""
    return example if example.is_floating_point() else torch.ones_like(example)


def zeros(name: str, datatype: str, shape: Sequence[int]) -> torch.Tensor:
    if datatype not in DATATYPES or datatype == "BYTES":
        raise ConfigError(f"inputs: {name!r} has the datatype {datatype!r}", hint=f"One of {', '.join(DATATYPES)}")
    import numpy as np

    size = [1 if axis == -1 else axis for axis in shape]
    if datatype == "BF16":
        return torch.zeros(size, dtype=torch.bfloat16)
    return torch.from_numpy(np.zeros(size, DATATYPES[datatype].dtype))
