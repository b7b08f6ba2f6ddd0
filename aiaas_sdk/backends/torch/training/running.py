"""The whole of a run: a copy of the model, the loop, the new version."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch import rebuilding, saving, weights
from aiaas_sdk.backends.torch.training import lineage, supply
from aiaas_sdk.backends.torch.training.checkpoints import BESIDE, Checkpoint, Checkpoints, Shelf
from aiaas_sdk.backends.torch.training.compiling import compiled
from aiaas_sdk.backends.torch.training.goal import Goal
from aiaas_sdk.backends.torch.training.loop import Loop
from aiaas_sdk.backends.torch.training.ranks import Alone, Ranks
from aiaas_sdk.backends.torch.training.supply import Part, Supply, Way
from aiaas_sdk.backends.torch.training.telling import Telling
from aiaas_sdk.backends.torch.training.tensorboard import Board
from aiaas_sdk.errors import ConfigError, TrainingError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.training import Event, Fit
from aiaas_sdk.rows import Data

__all__ = ["Parent", "divided", "run", "seed_of", "train"]

logger = logging.getLogger("aiaas_sdk.training")


@dataclass(frozen=True, slots=True)
class Parent:
    """The version that is trained from.

    Attributes:
        path: of the bundle; its new version goes there.
        found: the version, read and checked.
        cls: the class of its module.
        registered: whether the class comes from the registry, by the name in the manifest.
    """

    path: Path
    found: bundle.Bundle
    info: ModelInfo
    cls: Callable[..., torch.nn.Module]
    registered: bool
    device: torch.device

    def module(self) -> torch.nn.Module:
        """A copy of its own, where it is trained."""
        manifest = self.found.manifest
        config = manifest.architecture.config if manifest.architecture else {}
        dtype = "" if "+" in manifest.dtype else manifest.dtype
        where = f"{manifest.name}@{manifest.version}"
        state = weights.from_bytes(self.found.weights)
        return rebuilding.rebuild(self.cls, config, state, dtype, where).to(self.device)


def train(
    parent: Parent, fit: Fit, data: Data, told: Callable[[Event], None], stopped: Callable[[], bool]
) -> str | None:
    """One `fit`, as `Model.fit` documents it.

    Args:
        told: takes the events of `records.training.Event`.
        stopped: whether the run should end soon.

    Returns:
        The address of the new version; None where the run was stopped.
    """
    board = None if fit.tensorboard is None else Board(fit.tensorboard)
    facts = supply.facts(data)
    checkpoints = Checkpoints(_folder(parent, fit, facts))
    tell = told if board is None else _both(told, board.tell)
    try:
        if fit.workers > 1:
            from aiaas_sdk.backends.torch.training.launching import launch

            address = launch(parent, fit, data, facts, checkpoints, tell, stopped)
        else:
            address = run(parent, fit, data, facts, checkpoints, tell, stopped, Alone())
        if address is not None:
            checkpoints.done()
        return address
    finally:
        checkpoints.close()
        if board is not None:
            board.close()


def run(
    parent: Parent,
    fit: Fit,
    data: Data,
    facts: Mapping[str, Any],
    shelf: Shelf,
    told: Callable[[Event], None],
    stopped: Callable[[], bool],
    ranks: Ranks,
) -> str | None:
    """As `train`, in this process, which may be one of several: then only the first tells, and writes.

    Args:
        facts: what is noted of the data.
        shelf: where the checkpoints stand; it is held.
    """
    begun = _Run(parent, fit, data, facts, shelf, told, ranks)
    return begun.save() if begun.loop.run(begun.telling, begun.keep, stopped) else None


def _both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def _folder(parent: Parent, fit: Fit, data: Mapping[str, Any]) -> Path:
    if fit.checkpoint is not None:
        return Path(fit.checkpoint)
    return parent.path / BESIDE / lineage.key(parent.found.digest, fit, data)


class _Run:
    """A run that is about to begin, or to go on."""

    def __init__(
        self,
        parent: Parent,
        fit: Fit,
        data: Data,
        facts: Mapping[str, Any],
        checkpoints: Shelf,
        told: Callable[[Event], None],
        ranks: Ranks,
    ) -> None:
        self._parent, self._fit, self._checkpoints, self._data = parent, fit, checkpoints, facts
        self._ranks = ranks
        self._begun = time.monotonic()
        earlier = checkpoints.newest() if fit.resume else None
        self._seed = seed_of(fit, earlier)
        training, validation = _supplies(data, fit, self._seed, parent, ranks.part)
        if earlier is None:
            checkpoints.clear()
        else:
            self._check_same(earlier)
        module = ranks.spread(parent.module())
        forward, left_out = compiled(module, _example(parent.info)) if fit.compile else (module, None)
        self._goal = goal = Goal(fit, parent.info, ranks)
        whole = ranks.forward(forward)
        self.loop = Loop(module, whole, fit, goal, training, validation, self._seed, parent.device, ranks)
        self._seconds = 0.0
        if earlier is not None:
            self.loop.restore(earlier.tensors, earlier.facts["loop"])
            self._seconds = earlier.facts["seconds"]
        self.telling = Telling(told, fit.epochs, self.loop.steps, self.loop.step)
        self.telling.other(
            "started",
            epochs=fit.epochs,
            steps=self.loop.steps,
            rows=training.count,
            seed=self._seed,
            device=str(parent.device),
            resumed=earlier is not None,
            step=self.loop.step,
            history={name: list(values) for name, values in self.loop.history.items()},
            **({} if left_out is None else {"left_out": left_out}),
        )

    def _check_same(self, earlier: Checkpoint) -> None:
        """What goes on is the same run."""
        now = self._identity()
        for name, value in earlier.facts["run"].items():
            if now[name] == value:
                continue
            if isinstance(value, dict):
                name = next(key for key in {**value, **now[name]} if value.get(key) != now[name].get(key))
            raise ConfigError(
                f"the checkpoint in {self._checkpoints.folder} is of a run with another {name}",
                hint="Give what was given then, or begin anew with resume=False",
            )

    def _identity(self) -> dict[str, Any]:
        return {
            "parent": self._parent.found.digest,
            "settings": {**lineage.settings(self._fit), "seed": self._seed},
            "rows": self._data,
        }

    # ------------------------------------------------------------ checkpoints
    def keep(self) -> None:
        """Write a checkpoint. A disk that refuses doesn't end the run: those from before are good."""
        tensors, facts = self.loop.kept()
        if not self._ranks.first:
            return
        state = {"run": self._identity(), "loop": facts, "seconds": self._took()}
        at = {"epoch": self.loop.epoch, "step": self.loop.step}
        try:
            path = self._checkpoints.write(Checkpoint(self.loop.step, state, tensors))
        except TrainingError as error:
            logger.warning("%s; the run goes on", error.message)
            self.telling.other("checkpoint", **at, path=None, error=error.message)
        else:
            self.telling.other("checkpoint", **at, path=str(path))

    def _took(self) -> float:
        return self._seconds + time.monotonic() - self._begun

    # ------------------------------------------------------------ the result
    def save(self) -> str | None:
        """Write the new version; give its address, if this is the process that writes.

        What can't be saved is kept as a checkpoint, if that can.
        """
        try:
            return self._new_version()
        except Exception:
            if self._ranks.alike:  # else it would take the others, who have ended
                self.keep()
            raise

    def _new_version(self) -> str | None:
        parent, manifest = self._parent, self._parent.found.manifest
        state = {name: tensor.detach() for name, tensor in self.loop.result().items()}
        if not self._ranks.first:
            return None
        came = lineage.lineage(
            {"version": manifest.version, "digest": parent.found.digest},
            self._fit,
            self._seed,
            self._data,
            {
                "epochs": self.loop.epoch,
                "steps": self.loop.step,
                "seconds": round(self._took(), 3),
                "losses": dict(self._goal.names),
                "metrics": {name: values[-1] for name, values in self.loop.history.items()},
            },
        )
        located = self._written(state, came) if parent.registered else self._saved(state, came)
        return f"torch:{parent.path}@{located.version}"

    def _written(self, state: Mapping[str, torch.Tensor], came: Mapping[str, Any]) -> bundle.Located:
        """The parent's manifest and files, with other weights."""
        manifest = self._parent.found.manifest
        facts = saving.Facts(
            name=manifest.name,
            inputs=[tensor.spec() for tensor in manifest.inputs],
            outputs=[tensor.spec() for tensor in manifest.outputs],
            dtype=manifest.dtype,
            labels=manifest.labels,
            architecture=manifest.architecture,
            language=manifest.language,
            metadata=manifest.metadata,
            lineage=came,
        )
        beside = {name: bytes(content) for name, content in self._parent.found.beside.items()}
        return saving.write(self._parent.path, {bundle.WEIGHTS: weights.to_bytes(state), **beside}, facts)

    def _saved(self, state: Mapping[str, torch.Tensor], came: Mapping[str, Any]) -> bundle.Located:
        """Saved anew, from the class that the user brought: a program that a stranger wrote isn't signed again."""
        manifest = self._parent.found.manifest
        module = self._parent.module().cpu()
        module.load_state_dict({name: tensor.cpu() for name, tensor in state.items()})
        return saving.save(
            module,
            self._parent.path,
            example=_example(self._parent.info),
            name=manifest.name,
            version=None,
            labels=manifest.labels,
            architecture=None,
            config=None,
            metadata=manifest.metadata,
            lineage=came,
        )


def seed_of(fit: Fit, earlier: Checkpoint | None) -> int:
    if fit.seed is not None:
        return fit.seed
    return lineage.new_seed() if earlier is None else int(earlier.facts["run"]["settings"]["seed"])


def _supplies(data: Data, fit: Fit, seed: int, parent: Parent, part: Part) -> tuple[Supply, Supply | None]:
    data = divided(data, fit, seed)
    training, validation = data.training, data.validation
    way = Way(fit.batch_size, parent.device, seed if fit.shuffle else None, part)
    apart = Way(fit.batch_size, parent.device, None, part)
    learned = supply.supply_of(training, parent.info, way, fit.epochs)
    checked = None if validation is None else supply.supply_of(validation, parent.info, apart, fit.epochs)
    return learned, checked


def divided(data: Data, fit: Fit, seed: int) -> Data:
    """With the rows to check with apart; as it is, where they are."""
    if fit.validation is None or data.validation is not None:
        return data
    return Data(*supply.split(data.training, fit.validation, seed))


def _example(info: ModelInfo) -> dict[str, torch.Tensor]:
    """Two rows of zeros in the model's signature."""
    from aiaas_sdk.backends.torch.creating import zeros

    return {s.name: zeros(s.name, s.datatype, [2 if size == -1 else size for size in s.shape]) for s in info.inputs}
