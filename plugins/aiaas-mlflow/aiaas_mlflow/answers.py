"""What is answered: `{"predictions": ...}`, or what other servers of `/invocations` put in its place, as tensors.

JSON has numbers, texts, true and false: whole numbers come as INT64 (UINT64 where one is too large), all others as FP64
whatever the model computed in, texts as BYTES. `null` among numbers is NaN, and so is the bare NaN that MLflow writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.tensors import MAX_RANK, Tensor
from aiaas_sdk.tensors import from_json as tensor_of
from aiaas_sdk.wire.status import excerpt

__all__ = ["decode"]

MEMBERS = ("predictions", "outputs")
"""MLflow's and TensorFlow Serving's; without either the whole document is the answer."""
LARGEST = 2**63 - 1


def decode(body: Buffer) -> Mapping[str, Tensor]:
    """The outputs by name: of a dict its keys, of records (a DataFrame) its columns, else "predictions" alone.

    Raises:
        ProtocolError: it is no JSON, or holds what is no array (ragged lists, lists of different things, objects
            within). What it holds isn't repeated.
    """
    try:
        document = from_json(bytes(body))
    except ValueError:
        raise ProtocolError(f"the answer is no JSON: {excerpt(body)}") from None
    found = document
    if isinstance(document, dict):
        found = next((document[member] for member in MEMBERS if member in document), document)
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        found = _columns(found)
    if isinstance(found, dict):
        return {name: _tensor(name, value) for name, value in found.items()}
    return {MEMBERS[0]: _tensor(MEMBERS[0], found)}


def _columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    names = records[0].keys()
    if any(record.keys() != names for record in records):
        raise ProtocolError("the answer has records with different members")
    return {name: [record[name] for record in records] for name in names}


def _tensor(name: str, value: Any) -> Tensor:
    where = f"the output {name!r}"
    flat, shape = _flat(value, where)
    return tensor_of(_datatype(flat, where), shape, flat, where)


def _datatype(flat: list[Any], where: str) -> str:
    kinds = set(map(type, flat))
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int}:
        return "UINT64" if max(flat) > LARGEST else "INT64"
    if kinds <= {int, float, type(None)}:
        return "FP64"
    raise ProtocolError(f"{where} is no array of numbers, of texts, or of true and false")


def _flat(value: Any, where: str) -> tuple[list[Any], tuple[int, ...]]:
    """The innermost values in order, and the shape of the lists around them."""
    level: list[Any] = [value]
    shape: tuple[int, ...] = ()
    while level and isinstance(level[0], list):
        sizes = {len(entry) if isinstance(entry, list) else -1 for entry in level}
        if len(sizes) != 1 or len(shape) == MAX_RANK:
            raise ProtocolError(f"{where} has lists of different lengths, or too many in one another")
        shape = (*shape, sizes.pop())
        level = list(chain.from_iterable(level))
    return level, shape
