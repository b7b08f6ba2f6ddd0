"""Rows and columns as JSON, without datatypes and shapes: KServe V1, TensorFlow Serving, MLflow.

    instances       one entry a row: a value or nested list for the one input, an object with an entry for each input
    inputs          the same by column: an array for the one input, an object with an array for each
    a table         names of columns, and rows of cells (MLflow's dataframe_split and dataframe_records, CSV)

Datatypes are those of the signature. Without one whole numbers are INT64 (UINT64 past its range), other numbers FP64,
texts BYTES. `{"b64": "..."}` is bytes (TensorFlow Serving, "Encoding binary values"); `null` among floats is NaN. The
shape is that of the nesting; one number a row is taken for an input of shape [-1, 1], too. Sources: KServe
`python/kserve/kserve/protocol/rest/v1_endpoints.py`; TensorFlow Serving "RESTful API"; MLflow
`mlflow/pyfunc/scoring_server`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from aiaas_sdk import tensors
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, MAX_RANK, Tensor
from aiaas_sdk.wire.status import clean

__all__ = ["UNNAMED", "by_name", "decode_columns", "decode_rows", "decode_table", "encode_columns", "encode_rows"]

UNNAMED = "input"
"""The name of the only input where nothing names it; the core calls a bare array so, too."""
_LARGEST = 2**63 - 1


# ---------------------------------------------------------------- in
def decode_rows(rows: Any, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The inputs of `instances`.

    Raises:
        InputError: they don't make arrays, or an input isn't named where there are several.
    """
    if type(rows) is not list:
        raise InputError("'instances' isn't a list of rows")
    named = [_is_named(row) for row in rows]
    if not any(named):
        return _unnamed(rows, specs)
    if not all(named):
        raise InputError(f"row {named.index(False)} of 'instances' isn't an object, and others are")
    return {name: _column(name, values, specs) for name, values in columns_of(rows).items()}


def decode_columns(value: Any, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The inputs of `inputs`; errors as `decode_rows`."""
    if not _is_named(value):
        return _unnamed(value, specs)
    return {name: _column(name, values, specs) for name, values in value.items()}


def decode_table(names: Sequence[str], rows: Sequence[Sequence[Any]], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The inputs of a table. Where its columns aren't the inputs, its rows are those of the one input.

    Raises:
        InputError: a row has more or fewer cells than there are columns; else as `decode_rows`.
    """
    for place, row in enumerate(rows):
        if type(row) is not list or len(row) != len(names):
            raise InputError(f"row {place} of the table hasn't the {len(names)} cells of its columns")
    if not by_name(names, specs):
        return {specs[0].name: _column(specs[0].name, list(rows), specs)}
    if len(set(names)) != len(names):
        raise InputError("the table has two columns of one name")
    return {name: _column(name, [row[place] for row in rows], specs) for place, name in enumerate(names)}


def by_name(names: Sequence[str], specs: Sequence[TensorSpec]) -> bool:
    """Whether a table's columns are inputs, rather than the places in rows of the one input."""
    if len(specs) != 1 or set(names) == {specs[0].name}:
        return True
    shape = specs[0].shape
    return len(shape) != 2 or shape[1] not in (-1, len(names))


def columns_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of rows that are objects.

    Raises:
        InputError: two rows have different members.
    """
    names = records[0].keys()
    for place, record in enumerate(records):
        if record.keys() != names:
            raise InputError(f"row {place} has other members than row 0")
    return {name: [record[name] for record in records] for name in names}


def _is_named(value: Any) -> bool:
    return type(value) is dict and value.keys() != {"b64"}


def _unnamed(value: Any, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    if len(specs) > 1:
        names = ", ".join(spec.name for spec in specs)
        raise InputError(f"the model has {len(specs)} inputs: {names}", hint="Give each by name, in an object")
    name = specs[0].name if specs else UNNAMED
    return {name: _column(name, value, specs)}


def _column(name: str, value: Any, specs: Sequence[TensorSpec]) -> Tensor:
    where = f"input '{clean(name, 80)}'"
    flat, shape = _flat(value, where)
    spec = next((spec for spec in specs if spec.name == name), None)
    datatype = _guessed(flat, where) if spec is None else spec.datatype
    if spec is not None:
        shape = _fitted(shape, spec.shape)
    if datatype == "BYTES":
        return Tensor(datatype, _objects([_element(value, where) for value in flat], shape))
    try:
        return tensors.from_json(datatype, shape, flat, where)
    except ProtocolError as error:
        raise InputError(error.message) from None


def _fitted(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The shape where the nesting can't tell it: of one value a row, and of no rows."""
    if len(shape) == 1 and wanted == (-1, 1):
        return (*shape, 1)
    if shape == (0,) and -1 not in wanted[1:]:
        return (0, *wanted[1:])
    return shape


def _guessed(flat: list[Any], where: str) -> str:
    kinds = set(map(type, flat))
    if kinds == {bool}:
        return "BOOL"
    if kinds and kinds <= {str, dict}:
        return "BYTES"
    if kinds == {int}:
        return "UINT64" if max(flat) > _LARGEST else "INT64"
    if kinds <= {int, float, type(None)}:
        return "FP64"
    raise InputError(f"{where} is no array of numbers, of texts, or of true and false")


def _flat(value: Any, where: str) -> tuple[list[Any], tuple[int, ...]]:
    """The innermost values in order, and the shape of the lists around them."""
    level: list[Any] = [value]
    shape: tuple[int, ...] = ()
    while level and list in (kinds := set(map(type, level))):
        sizes = {len(entry) for entry in level if type(entry) is list}
        if len(kinds) != 1 or len(sizes) != 1 or len(shape) == MAX_RANK:
            raise InputError(f"{where} has lists of different lengths, or too many in one another")
        shape = (*shape, sizes.pop())
        level = list(chain.from_iterable(level))
    return level, shape


def _element(value: Any, where: str) -> bytes:
    try:
        if type(value) is str:
            return value.encode()
        if type(value) is dict and value.keys() == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
    except (UnicodeEncodeError, binascii.Error, TypeError, ValueError):
        raise InputError(f"{where} (BYTES) has text that isn't Unicode, or b64 that isn't base64") from None
    raise InputError(f'{where} (BYTES) has values that are neither texts nor {{"b64": "..."}}')


def _objects(elements: list[bytes], shape: tuple[int, ...]) -> Any:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


# ---------------------------------------------------------------- out
def encode_rows(outputs: Mapping[str, Tensor]) -> Any:
    """`predictions` by row: the one output's rows; with several an object a row, where all have as many."""
    found = {name: _nested(tensor) for name, tensor in outputs.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    firsts = {tensor.shape[:1] for tensor in outputs.values()}
    if len(firsts) != 1 or () in firsts:
        return found
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def encode_columns(outputs: Mapping[str, Tensor]) -> Any:
    """`predictions` by column: the one output, or an object with each."""
    found = {name: _nested(tensor) for name, tensor in outputs.items()}
    return next(iter(found.values())) if len(found) == 1 else found


def _nested(tensor: Tensor) -> Any:
    """The tensor as lists in lists; BYTES as text, and as b64 where they aren't UTF-8."""
    if DATATYPES[tensor.datatype].plain:
        return tensors.storage(tensor).tolist()
    if tensor.datatype == "BYTES":
        flat = [_shown(bytes(value)) for value in tensors.storage(tensor).flat]
    else:
        flat = tensors.to_json(tensor)
    values = np.empty(len(flat), object)
    values[:] = flat
    return values.reshape(tensor.shape).tolist()


def _shown(element: bytes) -> Any:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}
