"""OUTPUT: a model's outputs as a file, or as JSON."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk import disk
from aiaas_sdk.cli.predicting import Answer
from aiaas_sdk.cli.printing import document
from aiaas_sdk.errors import InputError

__all__ = ["KINDS", "answered", "check", "check_folder", "listed", "write", "write_top"]

KINDS = ".npz, .npy, .json or .csv"
Outputs = Mapping[str, npt.NDArray[Any]]
Top = Sequence[Sequence[tuple[str, float]]]


def check(path: Path, outputs: Sequence[str], *, top: bool, kinds: str = KINDS) -> None:
    """Before the model is called: whether its outputs can be written there; `kinds` are those of the command."""
    suffix = path.suffix.lower()
    if suffix not in _FORMS or (top and suffix not in (".json", ".csv")):
        known = ".json or .csv" if top else kinds
        raise InputError(f"{path} is of no kind that can be written here", hint=f"Give {known}")
    check_folder(path)
    if suffix == ".npy" and len(outputs) > 1 and not top:
        raise InputError(f".npy holds one array, and there are {len(outputs)}: {', '.join(outputs)}", hint="Give .npz")


def check_folder(path: Path) -> None:
    """InputError where there is none that the file could go into."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")


def write(outputs: Outputs, path: Path) -> None:
    """Write the outputs in the form that the file's name says. The file is there whole, or as it was."""
    check(path, list(outputs), top=False)
    _store(path, _FORMS[path.suffix.lower()](outputs))


def write_top(top: Top, path: Path) -> None:
    """The best classes of each row: as JSON rows of [label, probability], or as CSV with a line for each."""
    if path.suffix.lower() == ".json":
        _store(path, document(top).encode())
        return
    lines = [(row, rank, label, p) for row, best in enumerate(top) for rank, (label, p) in enumerate(best, 1)]
    _store(path, _csv_text(["row", "rank", "label", "probability"], lines))


def listed(outputs: Outputs) -> dict[str, Any]:
    """The outputs as nested lists, BYTES as text."""
    return {name: _texts(name, array).tolist() for name, array in outputs.items()}


def answered(answer: Answer, output: Path | None, *, whole: bool) -> Any:
    """What goes to stdout: the outputs or best classes alone, or with `whole` also who answered."""
    outputs = None if output is not None or answer.top is not None else listed(answer.outputs)
    if not whole:
        return outputs if answer.top is None else answer.top
    return {
        "model": answer.model,
        "version": answer.version,
        "backend": answer.backend,
        "rows": answer.rows,
        "outputs": outputs,
        "top": None if output is not None else answer.top,
        "output": None if output is None else str(output),
    }


def _texts(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind != "O":
        return array
    try:
        flat = [entry.decode() for entry in array.ravel()]
    except UnicodeDecodeError:
        raise InputError(f"the output {name!r} has bytes that aren't UTF-8; no form here can hold them") from None
    texts = np.empty(len(flat), object)
    texts[:] = flat
    return texts.reshape(array.shape)


def _numbers(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind == "O":
        raise InputError(f"the output {name!r} is text, which numpy's files hold as code only", hint="Give .json")
    return array


def _store(path: Path, data: bytes) -> None:
    try:
        disk.replace(path, data)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or type(error).__name__}") from None


# ---------------------------------------------------------------- forms
def _npy(outputs: Outputs) -> bytes:
    ((name, array),) = outputs.items()
    return _array(_numbers(name, array))


def _array(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npz(outputs: Outputs) -> bytes:
    """As numpy.savez writes it, which can't be given an array of the name "file"."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in outputs.items():
            archive.writestr(f"{name}.npy", _array(_numbers(name, array)))
    return buffer.getvalue()


def _json(outputs: Outputs) -> bytes:
    return document(listed(outputs)).encode()


def _csv(outputs: Outputs) -> bytes:
    """One line a row. An output of one number a row is the column NAME, of more NAME[0], NAME[1], ..."""
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) != 1 or () in lengths:
        raise InputError("the outputs don't have the same number of rows, so they make no table", hint="Give .json")
    header, columns = [], []
    for name, array in outputs.items():
        flat = _texts(name, array).reshape(len(array), math.prod(array.shape[1:]))
        header += [name] if array.ndim == 1 else [f"{name}[{i}]" for i in range(flat.shape[1])]
        columns.append(flat.tolist())
    return _csv_text(header, [[cell for part in line for cell in part] for line in zip(*columns, strict=True)])


def _csv_text(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue().encode()


_FORMS: Mapping[str, Callable[[Outputs], bytes]] = {".npy": _npy, ".npz": _npz, ".json": _json, ".csv": _csv}
