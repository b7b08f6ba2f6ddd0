"""`aiaas export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from aiaas_onnx import export
from aiaas_sdk.api import load
from aiaas_sdk.cli import reading
from aiaas_sdk.cli.printing import document, table
from aiaas_sdk.errors import InputError

__all__ = ["command"]


class Int8(StrEnum):
    """How activations are scaled."""

    static = "static"
    dynamic = "dynamic"


def command(
    address: Annotated[str, typer.Argument(help="A bundle of PyTorch: torch:PATH, or a name in the settings.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .onnx, or a bundle's folder.")],
    int8: Annotated[Int8 | None, typer.Option(help="Make it 8-bit; static needs --data.")] = None,
    data: Annotated[Path | None, typer.Option(help="Inputs: .npy .npz .json .csv, or a folder of images.")] = None,
    truth: Annotated[Path | None, typer.Option(help="The right class of each row, as an index: a .npy file.")] = None,
    input_name: Annotated[str | None, typer.Option("--input", metavar="NAME", help="What one array is for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, errors too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write a PyTorch bundle as an ONNX model.

    For example:

        aiaas export torch:models/digits digits.onnx
        aiaas export digits models/digits-int8 --int8 static --data images.npy

    The answers are compared with PyTorch's before anything is written, on
    --data or else on random inputs. With --int8 and --data it says what was
    lost, on every second row where the others set the scales; with --truth,
    in accuracy, too.
    """
    rows = None if data is None else _rows(address, data, input_name)
    right = None if truth is None else _truth(truth)
    found = export(address, target, int8=None if int8 is None else int8.value, data=rows, truth=right)
    told: dict[str, Any] = {
        "address": found.address,
        "bytes": found.size,
        "against PyTorch": f"{found.max_abs:.2g} at most",
        "fixed axes": ", ".join(found.fixed) or None,
        "int8": found.int8,
    }
    if found.int8 is not None:
        told["bytes before"] = found.float_size
        told.update(_lost(found.loss))
    print(document(told) if as_json else table([(key, value) for key, value in told.items() if value is not None]))


def _lost(loss: Any) -> dict[str, Any]:
    if loss is None:
        return {"lost": "unknown: give --data to be told"}
    told = {"rows compared": loss.rows, "outputs differ": f"{loss.max_abs:.2g} at most"}
    if loss.agreement is not None:
        told["same class"] = f"{loss.agreement:.2%}"
    if loss.before is not None:
        told["accuracy"] = f"{loss.before:.2%} before, {loss.after:.2%} after: {loss.before - loss.after:.2%} lost"
    return told


def _rows(address: str, path: Path, name: str | None) -> dict[str, Any]:
    with load(address) as model:
        return reading.read([str(path)], model.info(), name)


def _truth(path: Path) -> Sequence[int]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a .npy file ({type(error).__name__})") from None
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"{path} holds {found.dtype} {list(found.shape)}; the truth is one integer a row")
    return list(map(int, found))
