"""What a Parquet file becomes when it is read, told without reading it.

Some kilobytes of it can become terabytes: pages are compressed, a run of equal values takes three bytes, and a text is
told by what it has in common with the one before. So the headers of all pages are added up, and nothing is believed
that the file's end says of sizes. It is done here, as pyarrow's own view of what describes a file ends the process
where that is crafted (`terminate called after throwing an instance of 'parquet::ParquetException'`, 26.0.1). Sources:
apache/parquet-format `src/main/thrift/parquet.thrift`, `Encodings.md`; apache/arrow `cpp/src/parquet/file_reader.cc`
(where a column begins and ends).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiaas_sdk.errors import InputError
from aiaas_sdk.server.compact import I32, I64, LIST, STRUCT, TEXT, Compact, Struct
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.wire.status import clean

__all__ = ["MEMBERS", "too_large", "weighed"]

MEMBERS = 16_384
"""Columns, groups of rows, pages: of each so many at most."""
_MAGIC = b"PAR1"
_DESCRIPTION = 1024**2  # bytes of the file's end
_WIDTH = 8  # bytes that a value takes; pages tell how many, not how wide
_TEXTS, _FIXED = 6, 7  # physical types: BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY
_DEPTH = 16  # of columns in columns
_SHARED_PREFIXES = 7  # the encoding DELTA_BYTE_ARRAY
# of a page's header: the field about its values, its dictionary, or its values (v2), and in it that of their encoding
_ENCODED = {5: 2, 7: 2, 8: 4}


class _Column(NamedTuple):
    """A column of the schema: its path, the bytes of a value, and whether it holds texts."""

    path: str
    width: int
    texts: bool


class _Page(NamedTuple):
    """What the header of a page says: bytes after decompression, values, and their encoding."""

    size: int
    values: int
    encoding: int


def too_large(limit: int, what: str) -> RefusedError:
    return RefusedError(413, f"the file becomes larger than {limit} bytes when it is unpacked: {what}")


def weighed(view: memoryview, limit: int) -> list[str]:
    """The paths of the columns with texts, of a file that doesn't become larger than so many bytes by its pages.

    Texts that stand in a dictionary are counted once.

    Raises:
        RefusedError: 413, it does. InputError: it is no such file.
    """
    described = _description(view)
    columns = list(_columns(_structs(described, 2)))
    if len({column.path for column in columns}) != len(columns):
        raise InputError("the table has two columns of one name")
    groups = [(_number(group, 3, I64), _structs(group, 1)) for group in _structs(described, 4)]
    if max(len(columns), 1) * max(len(groups), 1) > MEMBERS:
        raise RefusedError(413, f"the file has more than {MEMBERS} pieces")
    rows = sum(count for count, _ in groups)
    if _WIDTH * rows * max(len(columns), 1) > limit:
        raise too_large(limit, f"{len(columns)} columns of {rows} rows")
    pages = unpacked = 0
    for _, chunks in groups:
        if len(chunks) != len(columns):
            raise _wrong()
        for column, chunk in zip(columns, chunks, strict=True):
            for page in _pages(view, _member(chunk, 3)):
                pages += 1
                unpacked += page.size + page.values * column.width
                if pages > MEMBERS:
                    raise RefusedError(413, f"the file has more than {MEMBERS} pages")
                if unpacked > limit:
                    raise too_large(limit, f"column {_shown(column.path)}")
                if page.encoding == _SHARED_PREFIXES:
                    raise InputError(
                        f"column {_shown(column.path)} is encoded as DELTA_BYTE_ARRAY",
                        hint="Write it with the encoding PLAIN, or with a dictionary",
                    )
    return [column.path for column in columns if column.texts]


# ---------------------------------------------------------------- what describes it
def _description(view: memoryview) -> Struct:
    size = int.from_bytes(view[-8:-4], "little")
    if len(view) < 12 or view[:4] != _MAGIC or view[-4:] != _MAGIC or not 0 < size <= len(view) - 12:
        raise InputError("the body isn't Parquet: it doesn't begin and end as such a file does")
    if size > _DESCRIPTION:
        raise RefusedError(413, f"what describes the file's columns is larger than {_DESCRIPTION} bytes")
    described = Compact(view[-8 - size : -8]).struct()
    made_by = described.get((6, TEXT), b"").lower()
    version = re.match(rb"parquet-mr version (\d{1,9})\.(\d{1,9})", made_by)
    if made_by.startswith(b"parquet-mr") and (version is None or (int(version[1]), int(version[2])) < (1, 3)):
        raise InputError("the file is by a parquet-mr before 1.3, whose columns end where nobody can tell")
    return described


def _columns(schema: list[Struct]) -> Iterator[_Column]:
    """The leaves of the tree that the schema is, in their order; groups are followed by their members."""
    groups: list[tuple[list[str], int]] = []  # the path of each that isn't over, and its members that still come
    for place, element in enumerate(schema):
        names: list[str] = []
        if place:
            if not groups:
                raise _wrong()
            above, left = groups.pop()
            groups.append((above, left - 1))
            names = [*above, _name(element)]
        if members := element.get((5, I32), 0):
            groups.append((names, members))
            if members < 0 or len(groups) > _DEPTH:
                raise InputError("the file has columns in columns, too many in one another")
        elif place:
            yield _column(names, element)
        while groups and not groups[-1][1]:
            groups.pop()
    if groups:
        raise _wrong()


def _name(element: Struct) -> str:
    try:
        return str(element[4, TEXT], "utf-8")
    except (KeyError, UnicodeDecodeError):
        raise _wrong() from None


def _column(names: list[str], element: Struct) -> _Column:
    path, kind = ".".join(names), _number(element, 1, I32)
    if kind == _TEXTS and len(names) > 1:
        raise InputError(f"column {_shown(path)} holds texts in lists or groups", hint="Send JSON")
    width = _number(element, 2, I32) if kind == _FIXED else 0
    return _Column(path, max(width, _WIDTH), kind == _TEXTS)


def _shown(path: str) -> str:
    return repr(clean(path, 80))


# ---------------------------------------------------------------- pages
def _pages(view: memoryview, chunk: Struct) -> Iterator[_Page]:
    """The pages of a column, in a group of rows."""
    if not _number(chunk, 5, I64):  # without values nothing is read
        return
    at = _number(chunk, 9, I64)
    dictionary = chunk.get((11, I64), 0)
    if 0 < dictionary < at:
        at = dictionary
    end = at + _number(chunk, 7, I64)
    if not 4 <= at <= end <= len(view):
        raise InputError("a column lies outside of the file")
    while at < end:
        read = Compact(view[at:end])
        header = read.struct()
        unpacked, packed = _number(header, 2, I32), _number(header, 3, I32)
        values, encoding = 0, 0
        for field, place in _ENCODED.items():
            if (about := header.get((field, STRUCT))) is not None:
                values, encoding = max(values, _number(about, 1, I32)), max(encoding, _number(about, place, I32))
        yield _Page(unpacked, values, encoding)
        at += read.at + packed


# ---------------------------------------------------------------- members
def _number(struct: Struct, field: int, kind: int) -> int:
    value = struct.get((field, kind), -1)
    if value < 0:
        raise _wrong()
    return int(value)


def _member(struct: Struct, field: int) -> Struct:
    found: Struct | None = struct.get((field, STRUCT))
    if found is None:
        raise _wrong()
    return found


def _structs(struct: Struct, field: int) -> list[Struct]:
    found: list[Any] = struct.get((field, LIST), [])
    if len(found) > MEMBERS or not all(type(one) is dict for one in found):
        raise _wrong()
    return found


def _wrong() -> InputError:
    return InputError("the body isn't Parquet: what describes its columns or pages isn't right")
