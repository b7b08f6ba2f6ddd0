"""A run in a folder, for its worker processes: arrays as files that they map, all else pickled by reference.

Only the run's own processes read it; the folder is closed to other users of the machine.
"""

from __future__ import annotations

import io
import json
import pickle
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch.training.running import Parent
from aiaas_sdk.errors import IntegrityError, TrainingError, UnsupportedOperationError
from aiaas_sdk.records.training import Fit
from aiaas_sdk.rows import Data, Feed, Rows
from aiaas_sdk.tensors import Tensor, storage

__all__ = ["Luggage", "pack", "unpack"]

FACTS, PARTS = "run.json", "parts.pickle"
MODULE_HINT = "Put it into a module that can be imported, or give workers=1"


@dataclass(frozen=True, slots=True)
class Luggage:
    """All that a worker needs.

    Attributes:
        facts: what is noted of the data.
        shelf: the folder of the checkpoints.
        memory: bytes that each worker has for weights.
    """

    parent: Parent
    fit: Fit
    data: Data
    facts: Mapping[str, Any]
    shelf: Path
    memory: int


def pack(folder: Path, luggage: Luggage, line: Mapping[str, Any]) -> None:
    """Write it.

    Args:
        line: how a worker reaches the run, and how many threads it has; read before anything else is imported.

    Raises:
        UnsupportedOperationError: something can't travel. TrainingError: the disk refused.
    """
    parent, fit = luggage.parent, luggage.fit
    if parent.info.version is None:
        raise UnsupportedOperationError("the model has no version that a worker could read", hint="Give workers=1")
    sources = {"training": luggage.data.training, "validation": luggage.data.validation}
    try:
        parts = {
            "the model's class": _pickled("the model's class", parent.cls),
            "the optimizer": _pickled("the optimizer", fit.optimizer),
            "the loss": _pickled("the loss", fit.loss),
            "the rest": _pickled("the run", _rest(luggage)),
            **{name: _source(folder, name, source) for name, source in sources.items() if source is not None},
        }
        (folder / PARTS).write_bytes(pickle.dumps(parts))
        (folder / FACTS).write_text(json.dumps(line))
    except OSError as error:
        raise TrainingError(
            f"what the workers read can't be written to {folder}: {error.strerror or error}",
            hint="It takes as much room as the rows; TMPDIR says where",
        ) from error


def _rest(luggage: Luggage) -> dict[str, Any]:
    parent = luggage.parent
    return {
        "path": parent.path,
        "version": parent.info.version,
        "digest": parent.found.digest,
        "info": replace(parent.info, metadata=dict(parent.info.metadata)),
        "registered": parent.registered,
        "device": str(parent.device),
        "fit": replace(luggage.fit, optimizer="adam", loss="auto"),  # the real ones have parts of their own
        "facts": dict(luggage.facts),
        "shelf": luggage.shelf,
        "memory": luggage.memory,
    }


def unpack(folder: Path, device: torch.device | None) -> Luggage:
    """Read it, in a worker.

    Args:
        device: of this worker; None for the model's own.

    Raises:
        UnsupportedOperationError: something can't be imported here.
    """
    parts = pickle.loads((folder / PARTS).read_bytes())
    found = {name: _unpickled(name, part) for name, part in parts.items()}
    rest = found["the rest"]
    located = bundle.locate(rest["path"], rest["version"])
    read = bundle.read(located, bundle.Trust.of(False), program=False)
    if read.digest != rest["digest"]:
        raise IntegrityError(f"{located.folder} isn't what it was when the run began")
    parent = Parent(
        path=rest["path"],
        found=read,
        info=rest["info"],
        cls=found["the model's class"],
        registered=rest["registered"],
        device=device or torch.device(rest["device"]),
    )
    fit = replace(rest["fit"], optimizer=found["the optimizer"], loss=found["the loss"])
    data = Data(_read(folder, found["training"]), _read(folder, found["validation"]) if "validation" in found else None)
    return Luggage(parent, fit, data, rest["facts"], rest["shelf"], rest["memory"])


# ---------------------------------------------------------------- rows
@dataclass(frozen=True, slots=True)
class _Files:
    """Rows whose arrays are files: by name the datatype and the file."""

    inputs: Mapping[str, tuple[str, str]]
    targets: Mapping[str, tuple[str, str]]


def _source(folder: Path, name: str, source: Rows | Feed) -> bytes:
    if isinstance(source, Feed):
        return _pickled("x" if name == "training" else "validation", source)
    sides = {"inputs": source.inputs, "targets": source.targets}
    files: dict[str, dict[str, tuple[str, str]]] = {side: {} for side in sides}
    for side, tensors in sides.items():
        for place, (key, tensor) in enumerate(tensors.items()):
            file = f"{name}-{side}-{place}.npy"
            np.save(folder / file, storage(tensor), allow_pickle=tensor.datatype == "BYTES")
            files[side][key] = tensor.datatype, file
    return pickle.dumps(_Files(files["inputs"], files["targets"]))


def _read(folder: Path, source: _Files | Feed) -> Rows | Feed:
    if isinstance(source, Feed):
        return source
    sides = (source.inputs, source.targets)
    return Rows(*({key: _mapped(folder, *file) for key, file in side.items()} for side in sides))


def _mapped(folder: Path, datatype: str, file: str) -> Tensor:
    """Copied where it is written to, which nobody does: torch has no read-only tensors."""
    if datatype == "BYTES":
        return Tensor(datatype, np.load(folder / file, allow_pickle=True))
    found = np.load(folder / file, mmap_mode="c")
    return Tensor(datatype, found.view(np.ndarray))


# ---------------------------------------------------------------- pickles
class _Pickler(pickle.Pickler):
    """By reference, as pickle does it, without what stands in the program that was started."""

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, type | types.FunctionType) and getattr(obj, "__module__", None) == "__main__":
            raise pickle.PicklingError(f"{obj.__qualname__} stands in the program that was started")


def _pickled(what: str, value: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(value)
    except Exception as error:  # whatever a stranger's __reduce__ raises
        told = str(error).splitlines()[0][:200] if str(error) else "no message"
        raise UnsupportedOperationError(
            f"{what} can't be handed to other processes: {told}", hint=MODULE_HINT
        ) from error
    return buffer.getvalue()


def _unpickled(what: str, data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:  # an import that fails here
        raise UnsupportedOperationError(
            f"a worker process can't load {what} ({type(error).__name__}: {error})", hint=MODULE_HINT
        ) from error
