"""Rows to train with, from files: .npz, .npy, .csv, or a folder of images for each class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import BackendNotInstalledError, InputError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import DATATYPES

__all__ = ["named", "read"]

TARGETS = ("y", "label", "labels", "target", "targets", "class")
"""What the targets are called, in a .npz or a .csv."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
MOST_FIELDS = 100_000


def named(x: Any) -> bool:
    """Whether this names a file."""
    return isinstance(x, str | PathLike)


def read(x: Any, y: Any, info: ModelInfo) -> tuple[Any, Any]:
    """The rows of a file, as x and y.

    Args:
        x: the path. y: of a .npy the path of the targets, of a .csv the name of their column.

    Raises:
        InputError: there is no such file, or it isn't what its name says.
    """
    path = Path(x)
    if y is not None and (path.is_dir() or (path.suffix.lower() in (".npz", ".csv") and not isinstance(y, str))):
        raise InputError(
            f"{path} has its own targets, and y is {kind_of(y)}",
            hint="Leave y out; of a .npz or .csv it may be the name of an array or a column",
        )
    if path.is_dir():
        return _pictures(path, info)
    reader = {".npz": _npz, ".npy": _npy, ".csv": _csv}.get(path.suffix.lower())
    if reader is None or not path.is_file():
        told = f"{path} is no file" if reader else f"{path} is of no known kind"
        raise InputError(told, hint="Give a .npz, .npy or .csv file, or a folder with one of images for each class")
    try:
        return reader(path, y, info)
    except (OSError, ValueError, EOFError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read: {type(error).__name__}: {str(error)[:200]}") from None


def _npz(path: Path, y: Any, info: ModelInfo) -> tuple[Any, Any]:
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    column = y if isinstance(y, str) else next((name for name in TARGETS if name in arrays), None)
    if column not in arrays:
        raise InputError(f"{path} has no array of targets", hint=f"Call it y; it has {', '.join(arrays)}")
    targets = arrays.pop(column)
    return (next(iter(arrays.values())) if len(arrays) == 1 else arrays), targets


def _npy(path: Path, y: Any, info: ModelInfo) -> tuple[Any, Any]:
    x = np.load(path, allow_pickle=False)
    return x, np.load(Path(y), allow_pickle=False) if named(y) else y


def _csv(path: Path, y: Any, info: ModelInfo) -> tuple[Any, Any]:
    """A line of names, then a row a line. A column named like an input is that input; else all are its features."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = next(lines, [])[:MOST_FIELDS]
        table = [line for line in lines if line]
    ragged = next((place for place, line in enumerate(table) if len(line) != len(names)), None)
    if ragged is not None:
        raise InputError(f"{path}: row {ragged} has {len(table[ragged])} fields, and there are {len(names)} columns")
    column = y if isinstance(y, str) else next((name for name in TARGETS if name in names), names[-1] if names else "")
    if len({*names}) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise InputError(f"{path} has several columns called {twice!r}", hint="Give each a name of its own")
    if column not in names:
        raise InputError(f"{path} has no column {column!r}; its columns are {', '.join(names)}")
    if not table or len(names) < 2:
        told = "no rows" if not table else f"no column beside {column!r}"
        raise InputError(f"{path} has {told}", hint="Give a line of names, then a row a line, with commas between")
    columns = dict(zip(names, zip(*table, strict=True), strict=True))
    targets = _targets(columns.pop(column), info)
    return _features(columns, info, path), targets


def _targets(values: Sequence[str], info: ModelInfo) -> Any:
    if info.labels and all(value in info.labels for value in values):
        return list(values)
    try:
        return np.asarray([int(value) for value in values])
    except ValueError:
        pass
    try:
        return np.asarray([float(value) for value in values], np.float32)
    except ValueError:
        return list(values)


def _features(columns: Mapping[str, Sequence[str]], info: ModelInfo, path: Path) -> Any:
    inputs = {spec.name: spec for spec in info.inputs}
    if {*columns} == {*inputs}:
        return {name: _numbers({name: columns[name]}, inputs[name], path) for name in inputs}
    if len(inputs) != 1:
        raise InputError(f"{path} has the columns {', '.join(columns)}; the inputs are {', '.join(inputs)}")
    return _numbers(columns, info.inputs[0], path)


def _numbers(columns: Mapping[str, Sequence[str]], spec: Any, path: Path) -> Any:
    dtype = DATATYPES[spec.datatype].dtype if spec.datatype not in ("BF16", "BYTES") else np.dtype(np.float32)
    table = np.stack([_column(name, values, dtype, path) for name, values in columns.items()], axis=1)
    wanted = list(spec.shape[1:])
    if len(wanted) > 1 and all(size > 0 for size in wanted) and int(np.prod(wanted)) == table.shape[1]:
        return table.reshape(len(table), *wanted)  # pixels side by side
    return table[:, 0] if len(spec.shape) == 1 and table.shape[1] == 1 else table


def _column(name: str, values: Sequence[str], dtype: np.dtype[Any], path: Path) -> Any:
    parse, wanted = (float, "number") if dtype.kind == "f" else (int, "whole number")
    limits = None if dtype.kind == "f" else (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    found = []
    for row, value in enumerate(values):
        try:
            number = parse(value)
        except ValueError:
            raise InputError(f"{path}: {name!r} has {value[:80]!r} in row {row}, which is no {wanted}") from None
        if limits is not None and not limits[0] <= number <= limits[1]:
            told = f"{path}: {name!r} has {value[:80]!r} in row {row}"
            raise InputError(f"{told}; the model takes {limits[0]} to {limits[1]}")
        found.append(number)
    return np.asarray(found).astype(dtype)


def _pictures(path: Path, info: ModelInfo) -> tuple[Any, Any]:
    """A folder for each label, with images in it: floats from 0 to 1, in the size of the model's input."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        raise BackendNotInstalledError(
            "reading images needs the package pillow", hint='Install it: pip install "aiaas-sdk[plots]"'
        ) from None
    spec = info.inputs[0]
    if len(info.inputs) != 1 or len(spec.shape) != 4 or spec.shape[1] not in (1, 3) or min(spec.shape[2:]) < 1:
        raise InputError(f"{path} is a folder of images, and {info.name} doesn't take (rows, 1 or 3, height, width)")
    channels, height, width = spec.shape[1:]
    images, labels = [], []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        for file in sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURES):
            try:
                with Image.open(file) as image:
                    fitting = image.convert("L" if channels == 1 else "RGB").resize((width, height))
            except (UnidentifiedImageError, OSError) as error:
                raise InputError(f"{file} can't be read as an image ({type(error).__name__})") from None
            images.append(np.asarray(fitting, np.float32).reshape(height, width, channels).transpose(2, 0, 1) / 255)
            labels.append(folder.name)
    if not images:
        raise InputError(f"{path} has no folders with images", hint="Give a folder for each class, with images in it")
    wanted = DATATYPES[spec.datatype].dtype if spec.datatype != "BF16" else np.dtype(np.float32)
    return np.stack(images).astype(wanted), _targets(labels, info)
