"""Examples of requests that the served models take: zeros of their signatures, and a word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.server.hosting import Hosted

__all__ = ["Examples", "examples"]

Examples = Mapping[str, Mapping[str, Any]]
"""By the name of a schema, and by that of the model."""
MOST = 1_000
"""Values of an example; a tensor with more is left out."""
_NO_JSON = ("FP16", "BF16")


def examples(models: Mapping[str, Hosted]) -> Examples:
    """For the models that are open."""
    found: dict[str, dict[str, Any]] = {}
    for name, hosted in models.items():
        if hosted.info is not None:
            for schema, example in _of(name, hosted.info).items():
                found.setdefault(schema, {})[name] = example
    return found


def _of(name: str, info: ModelInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if info.inputs and all(map(_small, info.inputs)):
        found["InferRequest"] = {"inputs": [_tensor(spec) for spec in info.inputs]}
    if "generate" in info.verbs:
        found["ChatRequest"] = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
        found["CompletionRequest"] = {"model": name, "prompt": "Once upon a time"}
        found["GenerateRequest"] = {"text_input": "Once upon a time"}
    if "embed" in info.verbs:
        found["EmbeddingRequest"] = {"model": name, "input": ["Hello"]}
    return found


def _shape(spec: TensorSpec) -> list[int]:
    return [1 if size < 0 else size for size in spec.shape]


def _small(spec: TensorSpec) -> bool:
    return math.prod(_shape(spec)) <= MOST and spec.datatype not in _NO_JSON


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = _shape(spec)
    value: Any = {"BYTES": "", "BOOL": False}.get(spec.datatype, 0)
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [value] * math.prod(shape)}
