"""What a model takes and gives, in the protocol's datatypes, and what its metadata says."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.records.model import TensorSpec

__all__ = ["ELEMENTS", "LABELS", "check", "inputs", "labels", "outputs"]

ELEMENTS = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""onnxruntime's names of types, and ours."""
LABELS = ("labels", "names")
"""The keys of metadata that hold class names."""


def inputs(session: Any, graph: onnx.GraphProto, where: str) -> tuple[TensorSpec, ...]:
    """The inputs that a caller gives. UnsupportedOperationError where one is no tensor of known rank."""
    ranked = {value.name for value in graph.input if value.type.tensor_type.HasField("shape")}
    return tuple(_spec(argument, argument.name in ranked, "input", where) for argument in session.get_inputs())


def outputs(session: Any, graph: onnx.GraphProto, where: str) -> tuple[TensorSpec, ...]:
    """The outputs, as onnxruntime infers them."""
    ranked = {value.name for value in graph.output if value.type.tensor_type.HasField("shape")}
    # a shape that the file doesn't tell may have been inferred; an empty one then is none
    return tuple(
        _spec(argument, argument.name in ranked or bool(argument.shape), "output", where)
        for argument in session.get_outputs()
    )


def check(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str) -> None:
    """UnsupportedOperationError for the one mixture that onnxruntime's Python side can't carry."""
    if any(spec.datatype == "BYTES" for spec in inputs) and any(spec.datatype == "BF16" for spec in outputs):
        raise UnsupportedOperationError(f"{where} takes texts and gives BF16, which onnxruntime can't do from Python")


def _spec(argument: Any, ranked: bool, what: str, where: str) -> TensorSpec:
    datatype = ELEMENTS.get(argument.type)
    if datatype is None:
        hint = "Export a classifier of scikit-learn with zipmap=False" if "map(" in argument.type else None
        raise UnsupportedOperationError(
            f"{what} {argument.name!r} of {where} is {with_article(argument.type)}, which is no tensor that can travel",
            hint=hint,
        )
    if not ranked:
        raise UnsupportedOperationError(
            f"{what} {argument.name!r} of {where} doesn't say how many axes it has",
            hint="Export the model again with the shapes of its inputs and outputs",
        )
    return TensorSpec(argument.name, datatype, tuple(size if type(size) is int else -1 for size in argument.shape))


def labels(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names in the model's own metadata: `labels`, or `names` as detectors have it.

    A list of texts, or a mapping from index to text, as JSON or as Python writes it; anything else is passed over.
    """
    for key in LABELS:
        found = _plain(metadata.get(key, ""))
        if isinstance(found, Mapping):
            found = _in_order(found)
        if isinstance(found, Sequence) and not isinstance(found, str) and found:
            return tuple(map(str, found))
    return None


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if len(text) < 1 << 20 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _in_order(found: Mapping[Any, Any]) -> list[Any]:
    by_index = {int(index): name for index, name in found.items() if str(index).isdecimal()}
    return [by_index[index] for index in range(len(found)) if index in by_index] if len(by_index) == len(found) else []
