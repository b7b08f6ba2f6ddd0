"""The classification extension: an output's best classes instead of its numbers.

An output whose parameter `classification` is k becomes BYTES, `value:index` or `value:index:label`, best first: for
each row k of them, or as many as there are. Source: Triton `docs/protocol/extension_classification.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aiaas_sdk.errors import InputError
from aiaas_sdk.tensors import Kind, Tensor

__all__ = ["best"]


def best(tensor: Tensor, count: int, *, labels: Sequence[str] | None, rows: bool, where: str) -> Tensor:
    """The best classes.

    Args:
        tensor: scores, BYTES of shape (rows, count) come of them, or (count,).
        count: of classes, from 1 on.
        labels: of the classes.
        rows: the first axis is rows; else the tensor is one row.
        where: the output, for messages.

    Raises:
        InputError: they are no numbers.
    """
    if tensor.datatype in ("BYTES", "BOOL"):
        raise InputError(f"{where} is {tensor.datatype}, which has no best classes", hint="Ask for it as it is")
    scores = Kind.numpy().give(tensor)
    height = scores.shape[0] if rows else 1
    table = scores.reshape(height, scores.size // height if height else 0)
    # both turn the order round; equal ones stay in their order, and NaN comes last
    order = np.argsort(-table if table.dtype.kind == "f" else ~table, axis=1, kind="stable")[:, :count]
    found = np.empty(order.shape, object)
    for row, places in enumerate(order.tolist()):
        found[row] = [_told(table[row, place], place, labels) for place in places]
    return Tensor("BYTES", found if rows else found[0])


def _told(value: object, place: int, labels: Sequence[str] | None) -> bytes:
    label = f":{labels[place]}" if labels is not None and place < len(labels) else ""
    return f"{value!s}:{place}{label}".encode()
