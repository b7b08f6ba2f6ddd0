"""What a run needs to go on, on disk: two files in a folder that is renamed into place.

::

    <folder>/lock                      held while a run is at work
    <folder>/000000000120/state.json         position, settings, history, and the plain parts of all states
                         /state.safetensors  weights, the optimizer's tensors, random states
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from aiaas_sdk import disk
from aiaas_sdk.backends.torch import weights
from aiaas_sdk.bundle.files import read_file
from aiaas_sdk.bundle.weights import check
from aiaas_sdk.errors import BundleError, ConfigError, TrainingError

__all__ = ["BESIDE", "Checkpoint", "Checkpoints", "Shelf"]

logger = logging.getLogger("aiaas_sdk.training")

FORMAT = 1
STATE, TENSORS = "state.json", "state.safetensors"
NAME = re.compile(r"[0-9]{12}")
ASIDE = ".writing-"
BESIDE = ".training"
"""The folder beside a bundle's versions that runs have their own in."""
KEPT = 2
"""How many stay: where the newest was damaged, the one before is good."""
MAX_FACTS = 1 << 30


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state: after so many steps."""

    step: int
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Shelf:
    """The checkpoints of one run, for who knows that it is held: the run's own processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))

    # ------------------------------------------------------------ reading
    def newest(self) -> Checkpoint | None:
        """The newest that is whole; None where there is none.

        Raises:
            TrainingError: there are some, and none of them is whole.
        """
        found, failure = self._all(), None
        for path in reversed(found):
            try:
                return _read(path)
            except (BundleError, ValueError, KeyError, RecursionError) as error:
                logger.warning("the checkpoint %s is damaged (%s); the one before it is taken", path, error)
                failure = error
        if failure is not None:
            raise TrainingError(
                f"no checkpoint in {self.folder} is whole", hint="Remove the folder, or begin anew with resume=False"
            ) from failure
        return None

    # ------------------------------------------------------------ writing
    def write(self, checkpoint: Checkpoint) -> Path:
        """Keep a state: whole or not at all.

        Raises:
            TrainingError: the disk refused; those from before are as they were.
        """
        place = self.folder / f"{checkpoint.step:012}"
        data = weights.to_bytes(checkpoint.tensors)
        facts = {"format": FORMAT, "tensors": hashlib.sha256(data).hexdigest(), **checkpoint.facts}
        try:
            with disk.new_folder(place, ASIDE) as aside:
                disk.new_file(aside / TENSORS, data)
                disk.new_file(aside / STATE, json.dumps(facts).encode())
                if place.exists():  # damaged, or the same state; it goes when the new one is on the disk
                    shutil.rmtree(place)
        except OSError as error:
            raise TrainingError(f"a checkpoint can't be written to {self.folder}: {error.strerror or error}") from error
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return place

    def clear(self) -> None:
        """Remove all: another run begins."""
        for path in self._all():
            shutil.rmtree(path, ignore_errors=True)


class Checkpoints(Shelf):
    """The checkpoints of one run, locked against other runs.

    Raises:
        ConfigError: another run holds the folder, or it can't be made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: Any = (folder / "lock").open("ab")
        except OSError as error:
            raise ConfigError(f"checkpoints can't be kept in {folder}: {error.strerror or error}") from None
        try:
            _hold(self._lock.fileno(), folder)
        except BaseException:
            self._lock.close()
            raise
        self._sweep()

    def _sweep(self) -> None:
        for path in self.folder.glob(ASIDE + "*"):
            shutil.rmtree(path, ignore_errors=True)

    def done(self) -> None:
        """Remove all, and the folder itself: the run has ended, and its result is saved."""
        self.clear()
        with contextlib.suppress(OSError):
            (self.folder / "lock").unlink()
            self.folder.rmdir()
            if self.folder.parent.name == BESIDE:
                self.folder.parent.rmdir()  # where no other run has one

    def close(self) -> None:
        self._lock.close()


def _read(path: Path) -> Checkpoint:
    facts = json.loads(bytes(read_file(path, STATE, MAX_FACTS)))
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise BundleError(f"{path / STATE} has an unknown format")
    data = read_file(path, TENSORS)
    if hashlib.sha256(data).hexdigest() != facts["tensors"]:
        raise BundleError(f"{path / TENSORS} isn't what was written: its SHA-256 differs")
    check(data, str(path / TENSORS))
    return Checkpoint(int(path.name), facts, weights.from_bytes(data))


def _hold(handle: int, folder: Path) -> None:
    """Until the file is closed, or the process ends, however that is."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(
            f"another run with these settings is at work in {folder}",
            hint="Wait for its end, or give checkpoint= a folder of its own",
        ) from None
