"""The fields of a record type: what an annotation lets in."""

from __future__ import annotations

import datetime
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from aiaas_sdk.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["Field", "Values", "fields_of", "scalar_like"]

SCALARS = (bool, int, float, str, bytes)  # bool before int, of which it is a subclass
_NUMPY = ((np.bool_, bool), (np.integer, int), (np.floating, float))
_TAKEN = "Taken are bool, int, float, str, bytes, an Enum or Literal of these, lists of them, and numpy arrays"


class UnfitError(Exception):
    """An annotation that no tensor is like. Never leaves this package."""


@dataclass(frozen=True, slots=True)
class Values:
    """What an annotation lets in.

    Attributes:
        scalars: the types of a scalar or an element; empty where anything goes (`Any`, a numpy array).
        depth: 0 for a scalar, n for lists nested n deep; None where it may be any.
        optional: the value, or an element, may be None.
        exact: values are of these very types, so that they need no second look.
        array: a numpy array is wanted.
        keys: the type of the keys of a mapping; None for anything else.
    """

    scalars: frozenset[type] = frozenset()
    depth: int | None = None
    optional: bool = False
    exact: bool = False
    array: bool = False
    keys: type | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in code, the names that may match a tensor's, and what it lets in."""

    name: str
    names: tuple[str, ...]
    values: Values
    required: bool
    text: str
    """The annotation, for messages."""


def scalar_like(shape: Sequence[int]) -> bool:
    """Whether a row's shape has room for one scalar: [], [1], or free axes."""
    return all(size in (1, -1) for size in shape)


def fields_of(record: type[BaseModel], *, inputs: bool) -> tuple[Field, ...]:
    """The fields of a record type, in their order; of an input those that aren't excluded.

    Raises:
        ConfigError: there are none, or an annotation is one that no tensor is like.
    """
    if not record.model_fields:
        raise ConfigError(f"the record type {record.__name__} has no fields", hint="Give one field per tensor")
    _complete(record)
    return tuple(
        _field(record, name, info) for name, info in record.model_fields.items() if not (inputs and info.exclude)
    )


def _complete(record: type[BaseModel]) -> None:
    try:
        record.model_rebuild()  # does nothing where all is resolved
        return
    except Exception as error:  # pydantic's, or whatever an annotation raises
        problem = f"{record.__name__} has an annotation that can't be resolved ({type(error).__name__})"
    raise ConfigError(problem, hint="Define its types before the model is loaded")


def _field(record: type[BaseModel], name: str, info: FieldInfo) -> Field:
    text = getattr(info.annotation, "__name__", "") if isinstance(info.annotation, type) else ""
    text = text or str(info.annotation).replace("typing.", "")
    aliases = (info.alias, info.validation_alias, info.serialization_alias)
    names = dict.fromkeys([name, *(alias for alias in aliases if isinstance(alias, str))])
    try:
        return Field(name, tuple(names), _read(info.annotation), info.is_required(), text)
    except UnfitError as error:
        hint = str(error)
    raise ConfigError(f"{record.__name__}.{name} is {text}, which no tensor is like", hint=hint)


# ---------------------------------------------------------------- annotations
def _read(hint: Any) -> Values:
    hint = _bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return Values()
    if origin is Literal:
        return _of_values(arguments)
    if origin in (Union, types.UnionType):
        return _read_union(arguments)
    kind = origin or hint
    if not isinstance(kind, type):
        raise UnfitError(_TAKEN)
    if issubclass(kind, np.ndarray):
        return Values(array=True)
    if issubclass(kind, Enum):
        return _of_values(tuple(kind))
    if (scalar := _scalar(kind)) is not None:
        return Values(frozenset({scalar}), 0, exact=kind is scalar and scalar is not bool)
    if issubclass(kind, Mapping):
        return _read_mapping(arguments)
    if issubclass(kind, list | tuple) or kind is Sequence or kind is Collection:
        return _read_list(arguments)
    raise UnfitError(_why_not(kind))


def _bare(hint: Any) -> Any:
    """Without Annotated, NewType and `type X = ...`."""
    for _ in range(32):
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            break
    return hint


def _scalar(kind: type) -> type | None:
    for scalar in SCALARS:
        if issubclass(kind, scalar):
            return scalar
    return next((scalar for numpy, scalar in _NUMPY if issubclass(kind, numpy)), None)


def _of_values(values: tuple[Any, ...]) -> Values:
    """Of an Enum's or a Literal's values."""
    bare = [value.value if isinstance(value, Enum) else value for value in values]
    kinds = {type(value) for value in bare if value is not None}
    if not kinds or not kinds <= set(SCALARS):
        raise UnfitError(_TAKEN)
    return Values(frozenset(kinds), 0, optional=None in bare)


def _read_union(hints: tuple[Any, ...]) -> Values:
    each = [_read(hint) for hint in hints if hint is not type(None)]
    anything = any(not values.scalars for values in each)
    depths = {values.depth for values in each}
    return Values(
        frozenset() if anything else frozenset().union(*(values.scalars for values in each)),
        depths.pop() if len(depths) == 1 else None,
        optional=type(None) in hints or any(values.optional for values in each),
        exact=type(None) not in hints and all(values.exact for values in each),
        array=any(values.array for values in each),
        keys=next((values.keys for values in each if values.keys), None),
    )


def _read_mapping(arguments: tuple[Any, ...]) -> Values:
    """Only a classifier's probabilities are a mapping; whoever binds an input refuses it."""
    keys, each = arguments or (str, float)
    if keys not in (str, int) or _bare(each) is not float:
        raise UnfitError("A mapping is taken as dict[str, float] or dict[int, float], for probabilities")
    return Values(frozenset({float}), 1, keys=keys)


def _read_list(arguments: tuple[Any, ...]) -> Values:
    each = [_read(hint) for hint in dict.fromkeys(arguments) if hint is not Ellipsis]
    if any(values.depth is None and values.scalars for values in each):
        raise UnfitError("Elements are all scalars, or all lists of one depth")
    if not each or any(values.depth is None for values in each):
        return Values()
    if any(values.keys for values in each) or len({values.depth for values in each}) != 1:
        raise UnfitError(_TAKEN)
    return Values(
        frozenset().union(*(values.scalars for values in each)),
        (each[0].depth or 0) + 1,
        optional=any(values.optional for values in each),
        exact=all(values.exact for values in each),
    )


def _why_not(kind: type) -> str:
    if issubclass(kind, datetime.date | datetime.time | datetime.timedelta):
        return "Give a number that the model was trained on, such as moment.timestamp() in a float field"
    if hasattr(kind, "model_fields"):
        return "Nested records aren't taken: give their fields here"
    return _TAKEN
