"""Texts in, vectors and scores out: between tensors and what JSON holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import InputError, ProtocolError, UnsupportedOperationError
from aiaas_sdk.tensors import Tensor, storage

__all__ = ["floats", "matrix", "texts_of", "words"]


def texts_of(tensor: Tensor, name: str) -> list[str]:
    """The elements of a BYTES tensor as text.

    Raises:
        InputError: one isn't UTF-8.
    """
    try:
        return [str(element, "utf-8") for element in storage(tensor).ravel()]
    except UnicodeDecodeError:
        raise InputError(f"input {name!r} has an element that isn't UTF-8, and texts are") from None


def words(rows: Sequence[Sequence[str]]) -> Tensor:
    """Rows of texts, all of one length."""
    array = np.empty((len(rows), len(rows[0]) if rows else 0), object)
    for place, row in enumerate(rows):
        array[place] = [word.encode() for word in row]
    return Tensor("BYTES", array)


def floats(values: Any, shape: tuple[int, ...], where: str) -> Tensor:
    """Scores as float32.

    Raises:
        ProtocolError: they aren't numbers of this shape.
    """
    return Tensor("FP32", _numbers(values, where).reshape(shape).astype(np.float32))


def matrix(values: Any, count: int) -> npt.NDArray[np.float32]:
    """A vector for each of so many texts.

    Raises:
        UnsupportedOperationError: there is a vector for each token instead. ProtocolError: it is nothing of the kind.
    """
    if _depth(values) > 2:
        raise UnsupportedOperationError(
            "the endpoint answers with a vector for each token, and doesn't tell how they become one",
            hint="Serve the model with text-embeddings-inference, or as sentence-transformers",
        )
    array = _numbers(values, "the answer")
    if array.ndim != 2 or len(array) != count or not array.shape[1]:
        raise ProtocolError(f"the answer has the shape {list(array.shape)}; {count} texts were sent")
    with np.errstate(over="ignore"):  # float32 has no larger ones: they are infinite
        return array.astype(np.float32)


def _depth(values: Any) -> int:
    depth = 0
    while isinstance(values, list) and values:
        depth, values = depth + 1, values[0]
    return depth


def _numbers(values: Any, where: str) -> npt.NDArray[Any]:
    try:
        array = np.array(values)
    except ValueError:
        raise ProtocolError(f"{where} has lists of different lengths") from None
    if array.dtype.kind not in "iuf":
        raise ProtocolError(f"{where} holds something else than numbers")
    return array
