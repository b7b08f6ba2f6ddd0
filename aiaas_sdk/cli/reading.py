"""INPUT: files of arrays, tables and images, as a model's inputs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.cli import images
from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Kind, take

__all__ = ["KINDS", "read"]

KINDS = ".npy, .npz, .json, .csv, .png, .jpg, a folder of images, or - for JSON on stdin"


def read(paths: Sequence[str], info: ModelInfo, name: str | None, *, resize: bool = False) -> dict[str, Any]:
    """The inputs of a model by name, in its datatypes where they hold the same values.

    Args:
        paths: one file, or several images.
        info: the model's.
        name: the input that a file with one array is for; None where the model has one.
        resize: images of another size are scaled.

    Raises:
        InputError: a file isn't there, isn't what its name says, or doesn't fit.
    """
    if not paths:
        raise InputError("no input was given", hint=f"Give {KINDS}")
    if paths == ["-"]:
        return _named(_json(sys.stdin.buffer.read(), "stdin"), info, name)
    found = [Path(path) for path in paths]
    for path in found:
        if not path.exists():
            raise InputError(f"there is no file {path}", hint=f"Give {KINDS}")
    if all(path.is_dir() or path.suffix.lower() in images.SUFFIXES for path in found):
        spec = _target(info, name)
        if spec is None:
            raise InputError(f"{info.name} declares no inputs, so an image's shape is unknown", hint="Give a .npy file")
        return {spec.name: images.rows(images.files(found), spec, resize=resize)}
    if len(found) > 1:
        raise InputError("several inputs were given that aren't all images", hint="Give one file")
    return _file(found[0], info, name)


def _file(path: Path, info: ModelInfo, name: str | None) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _table(path, info, name)
    readers: Mapping[str, Callable[[Path], Any]] = {
        ".npy": _arrays,
        ".npz": _arrays,
        ".json": lambda path: _json(_bytes(path), str(path)),
    }
    if suffix not in readers:
        raise InputError(f"{path} is of no known kind", hint=f"Give {KINDS}")
    return _named(readers[suffix](path), info, name)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or type(error).__name__}") from None


# ---------------------------------------------------------------- arrays and JSON
def _arrays(path: Path) -> Any:
    """The array of a .npy, or those of a .npz by name."""
    try:
        with path.open("rb") as file:  # numpy itself leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            found = loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    if isinstance(found, dict) != (path.suffix.lower() == ".npz"):
        raise InputError(f"{path} isn't what its name says", hint=".npy holds one array, .npz several by name")
    # numpy's own name for an array that was saved without one
    return found["arr_0"] if isinstance(found, dict) and list(found) == ["arr_0"] else found


def _unreadable(path: Path, error: Exception) -> InputError:
    pickled = isinstance(error, ValueError) and "pickle" in str(error)
    why = "it isn't arrays of numbers alone, and anything else isn't loaded" if pickled else type(error).__name__
    return InputError(f"{path} can't be read: {why}")


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{where} isn't JSON{line}", hint="Give a list, or {NAME: list, ...}") from None


def _named(found: Any, info: ModelInfo, name: str | None) -> dict[str, Any]:
    """By input name, each in its datatype. One array alone is for the input `name`, or the only one."""
    if not isinstance(found, Mapping):
        spec = _target(info, name)
        found = {spec.name if spec else name or "input": found}
    elif name is not None:
        raise InputError("--input is for a file with one array; this one has arrays by name", hint="Leave it out")
    specs = {spec.name: spec for spec in info.inputs}
    return {key: _fitted(value, specs.get(key), info.name) for key, value in found.items()}


def _target(info: ModelInfo, name: str | None) -> TensorSpec | None:
    """The input that one array is for; None where the model declares none."""
    if not info.inputs:
        return None
    if name is None and len(info.inputs) == 1:
        return info.inputs[0]
    names = ", ".join(spec.name for spec in info.inputs)
    if name is None:
        raise InputError(f"{info.name} has {len(info.inputs)} inputs: {names}", hint="Give --input NAME, or a .npz")
    for spec in info.inputs:
        if spec.name == name:
            return spec
    raise InputError(f"{info.name} has no input {name!r}; it has {names}")


def _fitted(value: Any, spec: TensorSpec | None, where: str) -> Any:
    if spec is None or spec.datatype not in DATATYPES:
        return value
    if isinstance(value, np.ndarray):
        return _cast(value, spec)
    return Kind.numpy().give(take(value, spec, where=where))


def _cast(array: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """In the input's dtype where that keeps the values (floats may be rounded); else as it is, to be refused."""
    want = np.dtype(np.float32) if spec.datatype == "BF16" else DATATYPES[spec.datatype].dtype
    if array.dtype == want or array.dtype.kind not in "biuf" or want.kind == "O":
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(want)
        if array.dtype.kind == want.kind == "f":
            kept = bool((np.isfinite(array) == np.isfinite(cast)).all())
        else:
            kept = np.array_equal(cast, array) and np.array_equal(cast.astype(array.dtype), array)
    return cast if kept else array


# ---------------------------------------------------------------- CSV
def _table(path: Path, info: ModelInfo, name: str | None) -> dict[str, Any]:
    header, lines = _lines(path, info)
    if header and name is None and (by_name := _by_column(header, lines, info, path)):
        return by_name
    spec = _target(info, name)
    if spec is None:
        rows = [
            [_number(cell, f"{path}: row {row}, column {column}") for column, cell in enumerate(line)]
            for row, line in enumerate(lines)
        ]
        return {name or "input": np.asarray(rows, np.float64)}
    return {spec.name: _column(lines, range(len(lines[0])), spec, path, info.name)}


def _lines(path: Path, info: ModelInfo) -> tuple[list[str], list[list[str]]]:
    """The column names, where the first line is them, and the other lines."""
    try:
        text = _bytes(path).decode("utf-8-sig")
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV in UTF-8 ({type(error).__name__})") from None
    lines = [line for line in lines if any(line)]
    header: list[str] = []
    if lines and _is_header(lines[0], info):
        header, lines = lines[0], lines[1:]
    if not lines:
        raise InputError(f"{path} has no rows")
    if ragged := next((i for i, line in enumerate(lines) if len(line) != len(lines[0])), 0):
        raise InputError(f"{path}: row {ragged} has {len(lines[ragged])} columns, and the first {len(lines[0])}")
    return header, lines


def _is_header(line: Sequence[str], info: ModelInfo) -> bool:
    """Any text is a header, unless the model takes text: then only what are names of its inputs."""
    if any(spec.datatype == "BYTES" for spec in info.inputs):
        names = {spec.name for spec in info.inputs}
        return all(re.sub(r"\[\d+\]$", "", cell) in names for cell in line)
    return any(not _is_number(cell) for cell in line if cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in ("true", "false")
    return True


def _by_column(
    header: Sequence[str], lines: Sequence[Sequence[str]], info: ModelInfo, path: Path
) -> dict[str, Any] | None:
    """Each input from the column of its name, or from NAME[0], NAME[1], ...; None where the names aren't those."""
    places = {spec.name: _places(header, spec) for spec in info.inputs}
    missing = [name for name, found in places.items() if not found]
    if not info.inputs or (missing and len(info.inputs) == 1):
        return None
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; its columns are {', '.join(header[:20])}",
            hint=f"Name a column for each input: {', '.join(places)}",
        )
    return {spec.name: _column(lines, places[spec.name], spec, path, info.name) for spec in info.inputs}


def _places(header: Sequence[str], spec: TensorSpec) -> list[int]:
    if spec.name in header:
        return [header.index(spec.name)]
    parts = {
        int(m[1]): i for i, cell in enumerate(header) if (m := re.fullmatch(rf"{re.escape(spec.name)}\[(\d+)\]", cell))
    }
    return [parts[i] for i in range(len(parts))] if set(parts) == set(range(len(parts))) else []


def _column(
    lines: Sequence[Sequence[str]], places: Sequence[int], spec: TensorSpec, path: Path, where: str
) -> npt.NDArray[Any]:
    """Columns as rows of an input; those of an input with more axes hold its elements in row-major order."""
    flat = TensorSpec(spec.name, spec.datatype, (-1, -1))
    cells = [
        [_value(line[place], spec, f"{path}: row {row}, column {place}") for place in places]
        for row, line in enumerate(lines)
    ]
    array: npt.NDArray[Any] = Kind.numpy().give(take(cells, flat, where=where))
    inner = spec.shape[1:]
    if math.prod(inner) == len(places) and min(inner, default=0) >= 0:
        return array.reshape(len(lines), *inner)
    return array[:, 0] if len(spec.shape) == 1 and len(places) == 1 else array


def _value(cell: str, spec: TensorSpec, place: str) -> Any:
    if spec.datatype == "BYTES":
        return cell
    if spec.datatype == "BOOL" and cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if not cell and spec.datatype.startswith(("FP", "BF")):
        return math.nan
    return _number(cell, place)


def _number(cell: str, place: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    hint = "Leave out columns that are no inputs, such as the target; a header may stand in the first line only"
    raise InputError(f"{place} is no number", hint=hint)
