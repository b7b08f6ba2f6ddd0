"""Records to arrays: one array per input, its first axis the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import ConfigError, InputError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.schema.fields import SCALARS, Field, scalar_like
from aiaas_sdk.tensors import DATATYPES, Kind, Tensor, datatype_of, storage, take

__all__ = ["Column", "columns_fit", "encode", "plan"]

_NUMBERS = frozenset((bool, int, float))
_OWN = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES", bytes: "BYTES"}
"""The datatype of a scalar by itself, where no signature says otherwise: what numpy makes of it."""


@dataclass(frozen=True, slots=True)
class Column:
    """One input and the fields that fill it: one field, or one for each column.

    `spec` has the shape of a row; without a signature its datatype is "" and its shape unknown.
    """

    spec: TensorSpec
    fields: tuple[Field, ...]
    signed: bool = True


def taken(datatype: str) -> frozenset[type]:
    """The Python types whose values the datatype holds."""
    if datatype == "BYTES":
        return frozenset((str, bytes))
    if datatype == "BOOL":
        return frozenset((bool,))
    return _NUMBERS if _is_float(datatype) else frozenset((bool, int))


def _is_float(datatype: str) -> bool:
    return datatype.startswith(("FP", "BF"))


# ---------------------------------------------------------------- plan
def plan(record: str, fields: Sequence[Field], info: ModelInfo, rows: Sequence[TensorSpec]) -> tuple[Column, ...]:
    """Which field goes where.

    Args:
        record: the record type's name.
        fields: its fields.
        info: the model.
        rows: the inputs with the shapes of one record; empty where the model declares none.

    Raises:
        ConfigError: an input has no field, a field no input, or their types or shapes don't fit.
    """
    if not rows:
        return tuple(Column(TensorSpec(field.name, "", ()), (field,), signed=False) for field in fields)
    matched = {spec.name: field for spec in rows for field in fields if spec.name in field.names}
    if not matched and columns_fit(rows, fields):
        return (_columns(record, fields, info, rows[0]),)
    for spec in rows:
        if spec.name not in matched:
            raise _without_field(record, fields, info, rows, spec)
    for field in fields:
        if field not in matched.values():
            raise ConfigError(
                f"{info.name}: {record}.{field.name} goes to no input; they are {_names(rows)}",
                hint="Name it as its input, give it that alias, or keep it from the model: Field(exclude=True)",
            )
    return tuple(_one(record, matched[spec.name], info, spec) for spec in rows)


def columns_fit(rows: Sequence[TensorSpec], fields: Sequence[Field]) -> bool:
    """Whether there is one tensor, a row of it is a vector, and the fields are as many scalars."""
    if len(rows) != 1 or len(rows[0].shape) != 1 or rows[0].shape[0] not in (-1, len(fields)):
        return False
    return all(field.values.depth == 0 for field in fields)


def _without_field(
    record: str, fields: Sequence[Field], info: ModelInfo, rows: Sequence[TensorSpec], spec: TensorSpec
) -> ConfigError:
    have = ", ".join(field.name for field in fields)
    hint = f"Name a field so, or give one the alias: Field(alias={spec.name!r})"
    if len(rows) == 1 and len(spec.shape) == 1 and spec.shape[0] > 0:
        hint += f"; or give {spec.shape[0]} scalar fields, its columns"
    return ConfigError(f"{info.name}: no field of {record} is the input {_shown(spec)}; it has {have}", hint=hint)


def _columns(record: str, fields: Sequence[Field], info: ModelInfo, spec: TensorSpec) -> Column:
    for field in fields:
        _check_type(record, field, info, spec)
    return Column(spec, tuple(fields))


def _one(record: str, field: Field, info: ModelInfo, spec: TensorSpec) -> Column:
    _check_type(record, field, info, spec)
    depth = field.values.depth
    if depth is not None and depth != len(spec.shape) and not (depth == 0 and scalar_like(spec.shape)):
        raise ConfigError(
            f"{info.name}: {record}.{field.name} is {field.text}; a row of the input {_shown(spec)}",
            hint="Give a numpy array, or lists nested once for each axis",
        )
    return Column(spec, (field,))


def _check_type(record: str, field: Field, info: ModelInfo, spec: TensorSpec) -> None:
    if field.values.keys is not None or field.values.scalars - taken(spec.datatype):
        kinds = ", ".join(kind.__name__ for kind in SCALARS if kind in taken(spec.datatype))
        raise ConfigError(
            f"{info.name}: {record}.{field.name} is {field.text}; the input {_shown(spec)}",
            hint=f"{spec.datatype} takes {kinds}",
        )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name!r} wants {spec.datatype} {list(spec.shape)}"


def _names(rows: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in rows)


# ---------------------------------------------------------------- arrays
def encode(columns: Sequence[Column], records: Sequence[Any], where: str, first: int) -> dict[str, npt.NDArray[Any]]:
    """One array per input, in the form in which a numpy caller gives it (BF16 as float32, BYTES as objects).

    Args:
        columns: the plan.
        records: instances of the record type.
        where: the model, for messages.
        first: the index of the first record, for messages.

    Raises:
        InputError: a value doesn't fit; it names record and field.
    """
    return {column.spec.name: _array(column, records, where, first) for column in columns}


def _array(column: Column, records: Sequence[Any], where: str, first: int) -> npt.NDArray[Any]:
    if not records:
        datatype = column.spec.datatype if column.signed else "FP64"
        width = (len(column.fields),) if len(column.fields) > 1 else (max(size, 0) for size in column.spec.shape)
        return np.empty((0, *width), _dtype(datatype))
    if len(column.fields) == 1 and not (column.spec.shape and column.fields[0].values.depth == 0):
        return _field_array(column.fields[0], column, records, where, first)
    spec = TensorSpec(column.spec.name, column.spec.datatype, ())
    if len(column.fields) > 1 and (tensor := _matrix(column, records, where, first)) is not None:
        return _given_array(tensor)
    parts = [_field_array(field, Column(spec, (field,)), records, where, first) for field in column.fields]
    if len(parts) == 1:  # one scalar for a row of one element
        return parts[0].reshape(len(records), *(1,) * len(column.spec.shape))
    return np.stack(parts, axis=1)


def _dtype(datatype: str) -> np.dtype[Any]:
    return np.dtype(np.float32) if datatype == "BF16" else DATATYPES[datatype].dtype


def _field_array(field: Field, column: Column, records: Sequence[Any], where: str, first: int) -> npt.NDArray[Any]:
    values = [getattr(record, field.name) for record in records]
    spec = column.spec if column.signed else _own_spec(field, values[0], first)
    values = [_plain(value, field, spec.datatype, first + i) for i, value in enumerate(values)]
    tensor = _together(spec, values, where) or _one_by_one(field, spec, values, where, first)
    return _given_array(tensor)


def _given_array(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = Kind.numpy().give(tensor)
    return array


def _matrix(column: Column, records: Sequence[Any], where: str, first: int) -> Tensor | None:
    """All columns at once, several times as fast as one by one; None where a value doesn't fit."""
    datatype = column.spec.datatype
    rows = [
        [_plain(getattr(record, field.name), field, datatype, first + i) for field in column.fields]
        for i, record in enumerate(records)
    ]
    return _together(TensorSpec(column.spec.name, datatype, (len(column.fields),)), rows, where)


def _together(spec: TensorSpec, values: Sequence[Any], where: str) -> Tensor | None:
    try:
        return take(values, TensorSpec(spec.name, spec.datatype, (-1, *spec.shape)), where=where)
    except InputError:
        return None


def _own_spec(field: Field, value: Any, first: int) -> TensorSpec:
    """Without a signature: the datatype of the annotation, else of the first value; any size of its rank."""
    kinds = [_OWN[kind] for kind in (str, bytes, float, int, bool) if kind in field.values.scalars]
    try:
        shape = np.shape(value) if not isinstance(value, str | bytes) else ()
        return TensorSpec(field.name, kinds[0] if kinds else datatype_of(value), (-1,) * len(shape))
    except (ValueError, InputError) as error:
        problem = error.message if isinstance(error, InputError) else "ragged lists"
    raise InputError(f"record {first}, field {field.name!r}: {problem}")


def _one_by_one(field: Field, spec: TensorSpec, values: Sequence[Any], where: str, first: int) -> Tensor:
    """After the whole was refused: name the record that is to blame, or join what only fits one by one (torch)."""
    arrays = [_located(field, spec, value, where, first + i) for i, value in enumerate(values)]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InputError(
                f"record {first + i}, field {field.name!r}: shape {list(array.shape)}; "
                f"record {first} has {list(arrays[0].shape)}",
                hint="The records of one call have one shape: pad them, or predict them one by one",
            )
    return Tensor(spec.datatype, np.stack(arrays))


def _located(field: Field, spec: TensorSpec, value: Any, where: str, index: int) -> npt.NDArray[Any]:
    try:
        return storage(take(value, spec, where=where))
    except InputError as error:
        problem, hint = error.message, error.hint
    raise InputError(f"record {index}, field {field.name!r}: {problem}", hint=hint)


# ---------------------------------------------------------------- values
def _plain(value: Any, field: Field, datatype: str, index: int) -> Any:
    """Enum members as their values, None as NaN, bool as a number; lists all the way down."""
    if field.values.exact or hasattr(value, "__array__"):
        return value
    if isinstance(value, list | tuple):
        return [_plain(entry, field, datatype, index) for entry in value]
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return _missing(field, datatype, index)
    if isinstance(value, bool):
        return value if datatype in ("BOOL", "BYTES") else int(value)
    scalar: Any = next((kind for kind in SCALARS[1:] if isinstance(value, kind)), None)
    return value if scalar in (None, type(value)) else scalar(value)  # of a subclass: its plain value


def _missing(field: Field, datatype: str, index: int) -> float:
    if _is_float(datatype):
        return math.nan
    raise InputError(
        f"record {index}, field {field.name!r} is None, and {datatype} has no value for what is missing",
        hint=f"Give a value, or declare the field without None ({field.text})",
    )
