"""What is asked: the body of `POST /invocations`, as JSON.

One input without a name is `{"inputs": [...]}`, an array to the model. Inputs by name are `{"inputs": {name: [...]}}`,
and a table of columns, one number or text in each cell, is `{"dataframe_split": {"columns", "data"}}`: to a model
without a signature that makes the difference between a dict of arrays and a DataFrame. Source: MLflow, "Model serving",
"Accepted input formats", and mlflow/pyfunc/scoring_server. `{"inputs": ...}` is TensorFlow Serving's, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic_core import to_json

from aiaas_sdk import tensors
from aiaas_sdk.errors import InputError
from aiaas_sdk.tensors import DATATYPES, Tensor

__all__ = ["UNNAMED", "encode"]

UNNAMED = "input"
"""What the core calls a bare array where the model's inputs have no names."""


def encode(inputs: Mapping[str, Tensor], *, tables: bool) -> bytes:
    """The body for these inputs.

    Args:
        inputs: by name; the only one of the name `UNNAMED` travels without.
        tables: whether the peer knows `dataframe_split`.

    Raises:
        InputError: JSON can't carry a value (NaN, infinity, bytes that aren't UTF-8) or a shape.
    """
    columns = {name: _nested(name, tensor) for name, tensor in inputs.items()}
    if inputs.keys() == {UNNAMED}:
        document: dict[str, Any] = {"inputs": columns[UNNAMED]}
    elif tables and _a_table(inputs):
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        document = {"dataframe_split": {"columns": list(columns), "data": rows}}
    else:
        document = {"inputs": columns}
    try:
        return to_json(document)
    except ValueError:
        raise InputError("a name can't be written as JSON", hint="Use text without half characters") from None


def _a_table(inputs: Mapping[str, Tensor]) -> bool:
    shapes = {tensor.shape for tensor in inputs.values()}
    return len(shapes) == 1 and len(shapes.pop()) == 1


def _nested(name: str, tensor: Tensor) -> Any:
    """The tensor as lists in lists."""
    shape = tensor.shape
    if 0 in shape[:-1]:
        raise InputError(
            f"input {name!r} has the shape {list(shape)}, and lists in lists, which is all that this endpoint takes, "
            "don't tell what lies within an empty axis",
            hint="Don't ask about no rows",
        )
    try:
        flat = tensors.to_json(tensor)
    except InputError as error:
        raise InputError(f"input {name!r}: {error.message}", hint="Send text, or numbers") from None
    if tensor.datatype in ("FP16", "BF16", "FP32", "FP64") and not np.isfinite(flat).all():
        raise InputError(
            f"input {name!r} holds NaN or infinity, and JSON, which is all that this endpoint takes, has neither",
            hint="Replace them before",
        )
    if DATATYPES[tensor.datatype].plain:
        return tensors.storage(tensor).tolist()
    values = np.empty(len(flat), object)
    values[:] = flat
    return values.reshape(shape).tolist()
