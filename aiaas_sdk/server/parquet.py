"""Tables as Apache Parquet: `application/x-parquet`, as SageMaker's clients call it, or MLflow's registered name.

`weighing.py` says before pyarrow reads a value how large the file becomes. A long text may stand in a dictionary once
and be meant a million times; so texts are read as places in their dictionary, and unfolded where that fits, too.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.weighing import MEMBERS, too_large, weighed
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.instances import decode_table
from aiaas_sdk.wire.status import clean

__all__ = ["PARQUET", "check_installed", "decode"]

PARQUET = ("application/x-parquet", "application/vnd.apache.parquet")
_OPTIONS: Mapping[str, Any] = {
    "thrift_string_size_limit": 4 * 1024**2,  # what describes the file may have as many bytes in all
    "thrift_container_size_limit": MEMBERS,
    "schema_depth_limit": 16,
    "pre_buffer": False,
    "arrow_extensions_enabled": False,
}


def check_installed() -> None:
    """
    Raises:
        RefusedError: 415, pyarrow isn't there.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise RefusedError(
            415,
            'this server reads no Parquet: it needs the package pyarrow (pip install "aiaas-sdk[parquet]")',
            unread=True,
        )


def decode(body: Buffer, specs: Sequence[TensorSpec], *, limit: int) -> dict[str, Tensor]:
    """The inputs that a file holds: its columns by name, or its rows for the one input.

    Values are read as the model's signature says, as those of JSON are; a column of lists gives an input more axes. An
    index that pandas kept is left out.

    Args:
        body: the file.
        specs: the model's inputs; may be none.
        limit: bytes that it may become.

    Raises:
        InputError: it can't be read, or doesn't make the inputs.
        RefusedError: 413, it becomes larger than that.
    """
    import pyarrow

    try:
        table = _table(body, limit)
        index = _index(table.schema.metadata or {})
        names = [name for name in table.column_names if name not in index]
        columns = [_values(table.column(name)) for name in names]
    except pyarrow.ArrowMemoryError:
        raise
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"the body can't be read as Parquet: {clean(str(error), 120)}") from None
    if not columns:
        raise InputError("the table has no columns")
    return decode_table(names, [list(row) for row in zip(*columns, strict=True)], specs)


# ---------------------------------------------------------------- reading
def _table(body: Buffer, limit: int) -> Any:
    import pyarrow
    from pyarrow import parquet

    view = memoryview(body)
    texts = weighed(view, limit)
    with parquet.ParquetFile(pyarrow.BufferReader(view), read_dictionary=texts, **_OPTIONS) as file:
        if any(map(_is_text, file.schema_arrow.types)):
            raise InputError("the file has a column of texts that can't be read as places in a dictionary")
        table = file.read(use_threads=False)
    if (total := sum(_unfolded(column) for column in table.columns)) > limit:
        raise too_large(limit, f"texts of {total} bytes")
    return table


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    return any(check(kind) for check in (*kinds, types.is_string_view, types.is_binary_view))


def _unfolded(column: Any) -> int:
    """Bytes that the texts of a column take when they are written out."""
    import pyarrow
    from pyarrow import compute

    if not pyarrow.types.is_dictionary(column.type):
        return 0
    total = 0
    for chunk in column.chunks:
        if pyarrow.types.is_primitive(chunk.dictionary.type):
            total += 8 * len(chunk)
        else:
            lengths = compute.binary_length(chunk.dictionary).cast("int64")
            total += compute.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _values(column: Any) -> list[Any]:
    """A column's values as JSON would have them."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_float16(column.type):
        column = column.cast("float32")
    values: list[Any] = column.to_pylist()
    if pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type):
        return [None if value is None else {"b64": base64.b64encode(value).decode()} for value in values]
    return values


def _index(metadata: Mapping[bytes, bytes]) -> frozenset[str]:
    """The columns that were a pandas frame's index."""
    try:
        found = json.loads(metadata[b"pandas"])["index_columns"]
        return frozenset(name for name in found if isinstance(name, str))
    except (KeyError, TypeError, ValueError, RecursionError):  # not by pandas
        return frozenset()
