"""`aiaas train`: a run here or there, shown while it goes on."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from aiaas_sdk.cli.exits import INTERRUPTED, guarded
from aiaas_sdk.cli.parameters import (
    Address,
    AsJson,
    Debug,
    Device,
    Dtype,
    Imports,
    KeyFrom,
    Timeout,
    import_all,
    options,
)
from aiaas_sdk.cli.printing import document, table
from aiaas_sdk.errors import AiaasError, ConfigError, InputError

__all__ = ["train"]

_ENDING = 60.0
"""Seconds for which Ctrl-C waits until the run has kept its last checkpoint; a second one doesn't wait."""
_PLOT, _HISTORY = ".png", ".json"


def _share(text: Any) -> Any:
    """A share of the rows, or a file."""
    try:
        return float(text)
    except ValueError:
        return str(text)


def train(
    context: typer.Context,
    address: Address,
    data: Annotated[
        str, typer.Argument(help="Rows and targets: .npz (x, y), .npy, .csv, or a folder of folders of images.")
    ],
    targets: Annotated[
        str | None, typer.Option("--targets", metavar="NAME", help="The column of a .csv; of a .npy its other file.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often all rows are gone through.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, metavar="ROWS", help="Rows of one step.")] = 32,
    optimizer: Annotated[
        str, typer.Option(help="gd, sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw.")
    ] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the optimizer.", show_default="the optimizer's own")
    ] = None,
    loss: Annotated[str, typer.Option(help="A loss by name; auto goes by the output and the targets.")] = "auto",
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="A metric; may be repeated.")
    ] = None,
    validation: Annotated[
        Any, typer.Option(parser=_share, metavar="SHARE|FILE", help="A share of the rows, or a file of others.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same one gives the same result.")] = None,
    schedule: Annotated[str, typer.Option(help="constant, linear, cosine, step, exponential, onecycle.")] = "constant",
    warmup_steps: Annotated[int, typer.Option(min=0, help="Steps in which the learning rate rises.")] = 0,
    clip_norm: Annotated[float | None, typer.Option(help="Cut gradients down to this length.")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches that make one step.")] = 1,
    mixed_precision: Annotated[bool, typer.Option("--mixed-precision", help="Compute in bfloat16.")] = False,
    early_stopping: Annotated[
        int | None, typer.Option(min=1, metavar="EPOCHS", help="End after so many without a better loss.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For checkpoints, of a run here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run like this one stopped.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The history: .json, or as curves .png.")
    ] = None,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Train a copy of a model, here or as a job on its endpoint.

    For example:

        aiaas train torch:models/digits digits.npz --epochs 10 --validation 0.1
        aiaas train https://host/v2/models/iris flowers.csv --targets kind
        aiaas train torch:models/digits photos/ --epochs 3 -o history.png

    The model itself doesn't change: what comes out is its next version, whose
    address is shown. Ctrl-C ends the run within a step; the same command with
    --resume goes on from there, with the same result as without the stop.
    --timeout is for the upload, not for the run.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load

        if output is not None and output.suffix not in (_PLOT, _HISTORY):
            raise ConfigError(f"-o {output} is neither a .png nor a .json file", hint="Name it history.png, say")
        begun = time.monotonic()
        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            with _uploads_shown():
                run = model.fit(data, targets, progress=True, **_settings(context.params))
            _waited(run)
            made = _address(run)
        found = {"address": made, "id": run.id, "seconds": time.monotonic() - begun, "history": run.history}
        if output is not None:
            _write(run, output, found)
        print(document(found) if as_json else _shown(found))


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `fit` among the options, which are called as they are."""
    from aiaas_sdk.records.training import Fit

    names = {field.name for field in fields(Fit)}
    return {name: value for name, value in given.items() if name in names and value not in (None, [], ())}


@contextlib.contextmanager
def _uploads_shown() -> Iterator[None]:
    """On a terminal, how much of the rows has been sent: the log tells it."""
    if not sys.stderr.isatty():
        yield
        return
    told, handler = logging.getLogger("aiaas_sdk.training"), logging.StreamHandler(sys.stderr)
    level = told.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    told.addHandler(handler)
    told.setLevel(logging.INFO)
    try:
        yield
    finally:
        told.removeHandler(handler)
        told.setLevel(level)


def _waited(run: Any) -> None:
    """Until it has ended. Ctrl-C ends it, in order."""
    try:
        run.wait()
    except KeyboardInterrupt:
        print("\naiaas: ending the run after this step", file=sys.stderr, flush=True)
        with contextlib.suppress(AiaasError):
            run.cancel()
            run.wait(_ENDING)
        if run.status == "succeeded":  # it was quicker
            return
        print("aiaas: interrupted\n  The same command with --resume goes on from here", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _address(run: Any) -> str:
    """Of the new version. Raises what a failed run ended with."""
    address: str | None = list(run.events())[-1].get("address")
    if address is None:
        run.result()
    assert address is not None  # a run without a result has raised
    return address


def _write(run: Any, output: Path, found: Mapping[str, Any]) -> None:
    try:
        if output.suffix == _PLOT:
            run.plot(output)
        else:
            output.write_text(document(found) + "\n")
    except OSError as error:
        raise InputError(f"{output} can't be written: {error.strerror or error}") from None


def _shown(found: Mapping[str, Any]) -> str:
    last = [(name, f"{values[-1]:.6g}") for name, values in found["history"].items()]
    return table([("model", found["address"]), ("seconds", f"{found['seconds']:.1f}"), *last])
