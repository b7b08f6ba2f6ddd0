"""Tables as text/csv (RFC 4180): rows in, rows out.

Whether the first line has the columns' names is told by the media type (`text/csv; header=present`, or `absent`), as
RFC 4180 has it. Where it isn't, the line is names if it spells the model's inputs, or if a cell of it is no value of
the column's datatype: MLflow's tables begin with names, SageMaker's don't.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.wire.instances import by_name, decode_table, encode_columns

__all__ = ["decode", "encode"]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_BOOLS = {"true": True, "false": False, "1": True, "0": False}
_LONG = 4000  # digits; Python reads a whole number of more only when told to


def decode(body: Buffer, specs: Sequence[TensorSpec], *, header: bool | None) -> dict[str, Tensor]:
    """The inputs that a table holds: its columns by name, or its rows for the one input.

    Args:
        body: UTF-8.
        specs: the model's inputs; may be none.
        header: whether the first line has the names; None where nobody says.

    Raises:
        InputError: it is no table, or its cells don't make the inputs.
    """
    lines = _lines(body)
    if not lines:
        raise InputError("the table has no lines")
    first = lines[0]
    named = _has_names(first, specs) if header is None else header
    names = first if named else _names(len(first), specs)
    rows = lines[1:] if named else lines
    kinds = _datatypes(names, specs)
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(f"row {place} of the table hasn't the {len(names)} cells of its columns")
    columns = [_values([row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    return decode_table(names, [list(row) for row in zip(*columns, strict=True)], specs)


def encode(outputs: Mapping[str, Tensor]) -> bytes | None:
    """The outputs as a table without names; None where they are none: several, or of more than two axes."""
    if len(outputs) != 1:
        return None
    values = encode_columns(outputs)
    (tensor,) = outputs.values()
    if len(tensor.shape) not in (1, 2):
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(values if len(tensor.shape) == 2 else [[value] for value in values])
    return text.getvalue().encode()


def _lines(body: Buffer) -> list[list[str]]:
    try:
        text = bytes(body).decode("utf-8-sig")
        return [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except UnicodeDecodeError:
        raise InputError("the table isn't UTF-8") from None
    except csv.Error as error:
        raise InputError(f"the table isn't CSV: {error}") from None


def _has_names(first: list[str], specs: Sequence[TensorSpec]) -> bool:
    if {spec.name for spec in specs} == set(first):
        return True
    kinds = _datatypes(_names(len(first), specs), specs)
    return any(kind != "BYTES" and _value(cell, kind) is cell for cell, kind in zip(first, kinds, strict=True))


def _names(count: int, specs: Sequence[TensorSpec]) -> list[str]:
    """Names for columns that have none: those of the inputs in their order, where there are as many."""
    return [spec.name for spec in specs] if len(specs) == count else [str(place) for place in range(count)]


def _datatypes(names: Sequence[str], specs: Sequence[TensorSpec]) -> list[str | None]:
    if not by_name(names, specs):
        return [specs[0].datatype] * len(names)
    known = {spec.name: spec.datatype for spec in specs}
    return [known.get(name) for name in names]


def _values(cells: list[str], datatype: str | None) -> list[Any]:
    """The cells of a column. Without a datatype they are all numbers, all true and false, or all texts."""
    values = [_value(cell, datatype) for cell in cells]
    guessed = datatype is None and (str in (kinds := set(map(type, values))) or (bool in kinds and len(kinds) > 1))
    return list(cells) if guessed else values


def _value(cell: str, datatype: str | None) -> Any:
    """A cell as JSON would have it; the same text where it is no value of that datatype."""
    if datatype == "BYTES":
        return cell
    text = cell.strip()
    if datatype in (None, "BOOL") and text.lower() in (_BOOLS if datatype else ("true", "false")):
        return _BOOLS[text.lower()]
    if not text and (datatype is None or DATATYPES[datatype].dtype.kind == "f" or datatype == "BF16"):
        return None
    if datatype == "BOOL" or len(text) > _LONG or not _NUMBER.fullmatch(text):
        return cell
    return int(text) if text.lstrip("+-").isdigit() else float(text)
