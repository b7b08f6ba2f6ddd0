"""Arrays to records: each field of the output type has one source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import ConfigError, ProtocolError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.records.probabilities import probabilities
from aiaas_sdk.schema.encoding import columns_fit
from aiaas_sdk.schema.fields import Field, scalar_like

__all__ = ["Source", "decode", "plan"]

Array = npt.NDArray[Any]
_TEXT = frozenset((str, bytes))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field's values come from: the outputs that may hold them (by name), and how they are made of one."""

    field: Field
    outputs: tuple[str, ...]
    make: Callable[[Array], Sequence[Any]]


# ---------------------------------------------------------------- plan
def plan(record: str, fields: Sequence[Field], info: ModelInfo, rows: Sequence[TensorSpec]) -> tuple[Source, ...]:
    """Where each field's values come from; a field with a default and no source keeps its default.

    Args:
        record: the record type's name.
        fields: its fields.
        info: the model.
        rows: the outputs with the shapes of one record; empty where the model declares none.

    Raises:
        ConfigError: a required field has no source, or its type or shape doesn't fit.
    """
    if not rows:
        return tuple(Source(field, field.names, partial(_values, field)) for field in fields)
    if _are_columns(fields, rows):
        _check_columns(record, fields, info, rows[0])
        return tuple(
            Source(field, (rows[0].name,), partial(_column, field, index, len(fields)))
            for index, field in enumerate(fields)
        )
    sources = [_source(record, field, info, rows) for field in fields]
    return tuple(source for source in sources if source is not None)


def _are_columns(fields: Sequence[Field], rows: Sequence[TensorSpec]) -> bool:
    special = {spec.name for spec in rows}
    if rows[0].shape != (1,):  # one number is no classifier's scores, whatever its field is called
        special |= CLASSIFIER.keys()
    return columns_fit(rows, fields) and not any(special & set(field.names) for field in fields)


def _check_columns(record: str, fields: Sequence[Field], info: ModelInfo, spec: TensorSpec) -> None:
    for field in fields:
        if not _type_fits(field, spec):
            raise _misfit(record, field, info, spec)


def _source(record: str, field: Field, info: ModelInfo, rows: Sequence[TensorSpec]) -> Source | None:
    named = next((spec for spec in rows if spec.name in field.names), None)
    if named is not None and _fits(field, named):
        return Source(field, (named.name,), partial(_values, field))
    kind = next((name for name in field.names if name in CLASSIFIER), None)
    if kind is not None and _of_classifier(kind, field):
        return _classified(record, field, kind, info, rows)
    if named is not None:
        raise _misfit(record, field, info, named)
    if not field.required:
        return None
    names = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in rows)
    raise ConfigError(
        f"{info.name}: {record}.{field.name} has no output; there are, per row: {names}",
        hint=f"Name it as an output, give it that alias, or give it a default. {_classifier_hint()}",
    )


def _classifier_hint() -> str:
    return f"A classifier's scores give {', '.join(CLASSIFIER)}"


def _misfit(record: str, field: Field, info: ModelInfo, spec: TensorSpec) -> ConfigError:
    return ConfigError(
        f"{info.name}: {record}.{field.name} is {field.text}; "
        f"a row of the output {spec.name!r} is {spec.datatype} {list(spec.shape)}",
        hint="BYTES gives str or bytes, anything else numbers; a row with axes a list or a numpy array",
    )


def _fits(field: Field, spec: TensorSpec) -> bool:
    depth = field.values.depth
    shaped = depth is None or depth == len(spec.shape) or (depth == 0 and scalar_like(spec.shape))
    return shaped and _type_fits(field, spec)


def _type_fits(field: Field, spec: TensorSpec) -> bool:
    scalars = field.values.scalars
    if field.values.keys is not None:
        return False
    return not scalars or bool(scalars & _TEXT if spec.datatype == "BYTES" else scalars - _TEXT)


# ---------------------------------------------------------------- a classifier's scores
def _of_classifier(kind: str, field: Field) -> bool:
    """Whether the field's type is one that this part of a classification comes in."""
    values = field.values
    if kind == "label":
        return values.depth in (0, None) and bytes not in values.scalars and not values.array
    if kind == "probability":
        return values.depth in (0, None) and (not values.scalars or float in values.scalars)
    right = values.depth in (1, None) and (not values.scalars or float in values.scalars)
    return right and (values.keys is None or kind == "probabilities")


def _classified(record: str, field: Field, kind: str, info: ModelInfo, rows: Sequence[TensorSpec]) -> Source | None:
    scores = _scores(rows)
    if scores is None:
        if not field.required:
            return None
        names = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in rows)
        raise ConfigError(
            f"{info.name}: {record}.{field.name} needs one output with a score per class; there are, per row: {names}",
            hint="Name the field as the output that it wants, or give it that alias",
        )
    labels = info.labels
    if kind == "probabilities" and field.values.keys is str and labels and len(set(labels)) != len(labels):
        raise ConfigError(
            f"{info.name}: {record}.{field.name} is {field.text}, and two classes have one label",
            hint="Declare it as list[float]",
        )
    return Source(field, (scores.name,), partial(CLASSIFIER[kind], field, labels))


def _scores(rows: Sequence[TensorSpec]) -> TensorSpec | None:
    """The one output whose row is a vector of scores; floats before integers (a quantised model's)."""
    vectors = [spec for spec in rows if len(spec.shape) == 1 and spec.shape[0] != 1 and spec.datatype != "BYTES"]
    floats = [spec for spec in vectors if spec.datatype.startswith(("FP", "BF"))]
    found = floats or [spec for spec in vectors if spec.datatype != "BOOL"]
    return found[0] if len(found) == 1 else None


def _label(field: Field, labels: tuple[str, ...] | None, scores: Array) -> Sequence[Any]:
    best: list[int] = _vectors(scores).argmax(axis=1).tolist()
    if field.values.scalars and str not in field.values.scalars:
        return best
    return [_name(index, labels) for index in best]


def _name(index: int, labels: tuple[str, ...] | None) -> str:
    return labels[index] if labels is not None and index < len(labels) else str(index)


def _probability(field: Field, labels: tuple[str, ...] | None, scores: Array) -> Sequence[Any]:
    rows: list[float] = probabilities(_vectors(scores)).max(axis=1).tolist()
    return rows


def _probabilities(field: Field, labels: tuple[str, ...] | None, scores: Array) -> Sequence[Any]:
    rows = probabilities(_vectors(scores))
    if field.values.keys is None:
        return list(rows) if field.values.array else rows.tolist()
    names = range(rows.shape[1])
    keys = list(names) if field.values.keys is int else [_name(index, labels) for index in names]
    return [dict(zip(keys, row, strict=True)) for row in rows.tolist()]


def _raw(field: Field, labels: tuple[str, ...] | None, scores: Array) -> Sequence[Any]:
    return list(scores) if field.values.array else _vectors(scores).tolist()


def _vectors(scores: Array) -> Array:
    if scores.ndim != 2 or not scores.shape[1]:
        raise _MisshapenError(f"a row of shape {list(scores.shape[1:])}, no scores of classes")
    return scores


CLASSIFIER: Mapping[str, Callable[[Field, tuple[str, ...] | None, Array], Sequence[Any]]] = {
    "label": _label,
    "probability": _probability,
    "probabilities": _probabilities,
    "scores": _raw,
}
"""What a vector of scores gives, by the name of the field."""


# ---------------------------------------------------------------- values
class _MisshapenError(Exception):
    """An array that a field can't be made of. Never leaves this module."""


def decode(
    sources: Sequence[Source], outputs: Mapping[str, Any], count: int, where: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the fields that have a source here, and each record's values for them.

    Raises:
        ProtocolError: an output is missing, has another number of rows, or can't be what a field wants.
    """
    columns: dict[str, Sequence[Any]] = {}
    for source in sources:
        name = next((name for name in source.outputs if name in outputs), None)
        if name is not None:
            columns[source.field.name] = _made(source, name, np.asarray(outputs[name]), count, where)
        elif source.field.required:
            raise ProtocolError(
                f"{where} gave no output for the field {source.field.name!r}", hint=f"It gave {', '.join(outputs)}"
            )
    return list(columns), list(zip(*columns.values(), strict=True)) if columns else [()] * count


def _made(source: Source, name: str, array: Array, count: int, where: str) -> Sequence[Any]:
    if array.shape[:1] != (count,):
        raise ProtocolError(f"{where}: the output {name!r} has shape {list(array.shape)} for {count} records")
    if not count:
        return []
    try:
        return source.make(array)
    except _MisshapenError as error:
        problem = str(error)
    raise ProtocolError(f"{where}: the output {name!r} has {problem}; the field {source.field.name!r} can't take it")


def _values(field: Field, array: Array) -> Sequence[Any]:
    """Rows as the field wants them: numpy rows, nested lists, or one scalar each."""
    if field.values.depth == 0:
        if array.size != len(array):
            raise _MisshapenError(f"a row of shape {list(array.shape[1:])}")
        array = array.reshape(len(array))
    return _texts(field, array) if array.dtype == object else _listed(field, array)


def _listed(field: Field, array: Array) -> list[Any]:
    if field.values.array:
        return [np.asarray(row) for row in array]  # a row of no axes too is an array
    if field.values.depth is None and array.ndim > 1:
        return list(array)
    rows: list[Any] = array.tolist()
    return rows


def _texts(field: Field, array: Array) -> Sequence[Any]:
    """BYTES as text: UTF-8, except where the field wants bytes, or takes both and it isn't."""
    wanted = field.values.scalars
    if bytes in wanted and str not in wanted:
        return _listed(field, array)
    both = not wanted or bytes in wanted
    flat = np.empty(array.size, object)
    flat[:] = [_text(value, both) for value in array.ravel().tolist()]
    return _listed(field, flat.reshape(array.shape))


def _text(value: Any, both: bool) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        if both:
            return value
    raise _MisshapenError("an element that isn't UTF-8, which bytes could hold")


def _column(field: Field, index: int, width: int, array: Array) -> Sequence[Any]:
    if array.ndim != 2 or array.shape[1] != width:
        raise _MisshapenError(f"a row of shape {list(array.shape[1:])}, not {width} columns")
    return _values(field, array[:, index])
