"""The arguments and options that several commands share."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from aiaas_sdk.errors import ConfigError

__all__ = [
    "Address",
    "AsJson",
    "Debug",
    "Device",
    "Dtype",
    "Imports",
    "InputName",
    "Inputs",
    "KeyFrom",
    "Resize",
    "Timeout",
    "import_all",
    "options",
]

Address = Annotated[str, typer.Argument(help="scheme:target, a URL, a bundle's folder, or a name in the settings.")]
Inputs = Annotated[list[str], typer.Argument(help="Files of inputs: .npy .npz .json .csv .png .jpg, a folder, or -.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, errors too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Limit for a whole call.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or mps; for a model that runs here.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, ...; for a model that runs here.")]
KeyFrom = Annotated[
    str | None, typer.Option("--api-key-env", metavar="VARIABLE", help="The variable that holds the credential.")
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Import it first, for its architectures; may lie in this folder."),
]
InputName = Annotated[str | None, typer.Option("--input", metavar="NAME", help="The input that one array is for.")]
Resize = Annotated[bool, typer.Option("--resize", help="Scale images to the size that the model wants.")]


def options(timeout: float | None, device: str | None, dtype: str | None = None, api_key_env: str | None = None) -> Any:
    """The options of `load` that were given."""
    from aiaas_sdk.records.secret import env

    key = None if api_key_env is None else env(api_key_env)
    given = {"timeout": timeout, "device": device, "dtype": dtype, "api_key": key}
    return {name: value for name, value in given.items() if value is not None}


def import_all(modules: Sequence[str] | None) -> None:
    """Import what the operator names, from the working folder too (a script's own folder isn't it)."""
    if not modules:
        return
    sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise ConfigError(f"--import {name} failed: {why}", hint="Mend it, or leave --import out") from error
