"""Record types, bound to a model's signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError, InputError, ProtocolError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.schema import decoding, encoding
from aiaas_sdk.schema.fields import fields_of

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["Bound", "Schema"]


@dataclass(frozen=True, slots=True)
class Schema:
    """The record types of a model; None where arrays are used.

    Raises:
        ConfigError: one isn't a subclass of pydantic.BaseModel.
    """

    input: type[Any] | None = None
    output: type[Any] | None = None

    def __post_init__(self) -> None:
        _check_record("input", self.input)
        _check_record("output", self.output)

    def bind(self, info: ModelInfo) -> Bound:
        """Fit the record types to a model.

        Raises:
            ConfigError: they can't fit; it names the model, the field, and what is wrong.
        """
        shapes = [spec.shape for spec in info.inputs + info.outputs]
        batched = info.rows_free or not shapes
        # A model made for one row only (ONNX files often are) has an axis of 1 in front of everything.
        axis = batched or all(shape[:1] == (1,) for shape in shapes)
        return Bound(
            info,
            self.input,
            self.output,
            _columns(self.input, info, axis),
            _sources(self.output, info, axis),
            batched,
            axis,
        )


def _check_record(option: str, record: Any) -> None:
    if record is None:
        return
    from pydantic import BaseModel

    if not isinstance(record, type) or not issubclass(record, BaseModel):
        what = f"the class {record.__name__}" if isinstance(record, type) else kind_of(record)
        raise ConfigError(f"{option}= is {what}", hint="Give a subclass of pydantic.BaseModel")


def _columns(record: type[Any] | None, info: ModelInfo, axis: bool) -> tuple[encoding.Column, ...]:
    if record is None:
        return ()
    return encoding.plan(record.__name__, fields_of(record, inputs=True), info, _rows(info.inputs, axis))


def _sources(record: type[Any] | None, info: ModelInfo, axis: bool) -> tuple[decoding.Source, ...]:
    if record is None:
        return ()
    return decoding.plan(record.__name__, fields_of(record, inputs=False), info, _rows(info.outputs, axis))


def _rows(specs: Sequence[TensorSpec], axis: bool) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec.name, spec.datatype, spec.shape[int(axis) :]) for spec in specs)


@dataclass(frozen=True, slots=True)
class Bound:
    """Record types that fit a model.

    Attributes:
        info: the model.
        input, output: the record types.
        batched: several records make one call. Where it is False each record is a call of its own: `encode` takes
            one, and its arrays have the signature's shapes, without an axis for records.
    """

    info: ModelInfo
    input: type[BaseModel] | None
    output: type[BaseModel] | None
    _columns: tuple[encoding.Column, ...]
    _sources: tuple[decoding.Source, ...]
    batched: bool
    _axis: bool

    # ------------------------------------------------------------ in
    def encode(self, records: Sequence[Any], first: int = 0) -> dict[str, npt.NDArray[Any]]:
        """The arrays of some records, by input name, in the form that `predict` takes from a numpy caller.

        Args:
            records: instances of the input type, or mappings that validate as one.
            first: the index of the first one in what the user gave, for messages.

        Returns:
            Arrays of shape (records, *row); without the first axis where the model isn't `batched`.

        Raises:
            InputError: a record is of another type or doesn't validate, or a value doesn't fit; record and field
                are named, the value isn't.
        """
        if self.input is None:
            raise ConfigError(f"{self.info.name} has no input record type", hint="Give one: load(..., input=TYPE)")
        if not self.batched and len(records) != 1:
            raise InputError(f"{self.info.name} takes one record a call, and was given {len(records)}")
        checked = [self._checked(self.input, record, first + index) for index, record in enumerate(records)]
        arrays = encoding.encode(self._columns, checked, self.info.name, first)
        return arrays if self._axis else {name: array.reshape(array.shape[1:]) for name, array in arrays.items()}

    def _checked(self, record_type: type[BaseModel], record: Any, index: int) -> BaseModel:
        if isinstance(record, record_type):
            return record
        if not isinstance(record, Mapping):
            raise InputError(
                f"record {index} is {kind_of(record)}; {self.info.name} takes {record_type.__name__}",
                hint=f"Give {record_type.__name__}(...), or a dict of its fields",
            )
        valid, problem = _validated(record_type, dict(record))
        if valid is None:
            raise InputError(f"record {index} is no {record_type.__name__}: {problem}")
        return valid

    # ------------------------------------------------------------ out
    def decode(self, outputs: Mapping[str, Any], count: int, first: int = 0) -> list[Any]:
        """The records of an answer, as many as were asked.

        Args:
            outputs: numpy arrays by output name.
            count: the number of records.
            first: the index of the first one, for messages.

        Raises:
            ProtocolError: an output is missing, has another number of rows, or a record of it doesn't validate;
                record and field are named, the value isn't.
        """
        if self.output is None:
            raise ConfigError(f"{self.info.name} has no output record type", hint="Give one: load(..., output=TYPE)")
        if not self._axis:
            outputs = {name: np.asarray(array)[None] for name, array in outputs.items()}
        names, rows = decoding.decode(self._sources, outputs, count, self.info.name)
        return [self._made(self.output, dict(zip(names, row, strict=True)), first + i) for i, row in enumerate(rows)]

    def _made(self, record_type: type[BaseModel], values: dict[str, Any], index: int) -> BaseModel:
        valid, problem = _validated(record_type, values, by_name=True)
        if valid is None:
            raise ProtocolError(
                f"{self.info.name}: record {index} of the answer is no {record_type.__name__}: {problem}"
            )
        return valid


def _validated(
    record_type: type[BaseModel], values: dict[str, Any], *, by_name: bool = False
) -> tuple[BaseModel | None, str]:
    """The record, or what is wrong. Nothing is raised from here: pydantic's error holds the values.

    `by_name` takes the fields' names, whatever their aliases are.
    """
    from pydantic import ValidationError

    try:
        by_alias = False if by_name else None  # None: as the record type says
        return record_type.model_validate(values, by_alias=by_alias, by_name=by_name or None), ""
    except ValidationError as error:
        return None, _told(error)
    except Exception as error:  # a validator of the user's may raise anything
        return None, f"its validation raised {type(error).__name__}"


def _told(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}" for problem in problems[:3]]
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(told) + more
