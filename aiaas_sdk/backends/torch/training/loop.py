"""Epochs and steps."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from aiaas_sdk.backends.torch.training.drawing import Drawing
from aiaas_sdk.backends.torch.training.goal import Goal
from aiaas_sdk.backends.torch.training.optimizers import optimizer_of
from aiaas_sdk.backends.torch.training.ranks import Ranks
from aiaas_sdk.backends.torch.training.schedules import Schedule
from aiaas_sdk.backends.torch.training.supply import Batch, Supply
from aiaas_sdk.backends.torch.training.tally import Tally
from aiaas_sdk.backends.torch.training.telling import Telling
from aiaas_sdk.errors import TrainingError
from aiaas_sdk.records.training import Fit

__all__ = ["Loop"]

logger = logging.getLogger("aiaas_sdk.training")

LATE = 32
"""Steps after which losses on a GPU are looked at, so that it needn't be waited for at each."""


class Loop:
    """The state of a run, and what moves it on: `run` goes to the end. Between any two steps `kept` is all that it
    needs to go on.

    Args:
        module: is trained, where it is.
        forward: computes its outputs: the module, or it compiled.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        fit: Fit,
        goal: Goal,
        supply: Supply,
        validation: Supply | None,
        seed: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.module, self._forward, self._fit, self._goal = module, forward, fit, goal
        self._supply, self._validation, self._device, self._ranks = supply, validation, device, ranks
        self._randomness = ranks.randomness(seed, device, everything=False)
        self._drawing, self._seed = Drawing(supply, seed, ranks), seed
        self.optimizer = optimizer_of(fit, module.parameters())
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._schedule = Schedule(fit.schedule, fit.warmup_steps, self.steps)
        self.epoch = self.batch = self.step = self.idle = 0
        self.history: dict[str, list[float]] = {}
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self._tally: Tally | None = None
        self._losses: list[Tensor] = []

    # ------------------------------------------------------------ sizes
    @property
    def group(self) -> int | None:
        """Batches of one step; None where all of an epoch make one."""
        return None if self._fit.optimizer == "gd" else self._fit.accumulate

    @property
    def steps(self) -> int | None:
        """Of the whole run; None where nobody knows."""
        batches = self._supply.batches
        if self.group is None:
            return self._fit.epochs
        return None if batches is None else self._fit.epochs * math.ceil(batches / self.group)

    # ------------------------------------------------------------ the run
    def run(self, telling: Telling, keep: Callable[[], None], stopped: Callable[[], bool]) -> bool:
        """To the end; False where it was stopped before.

        Args:
            keep: writes a checkpoint.
            stopped: whether the run should end.
        """
        pace = _Pace(self._fit, keep, self._ranks)
        while self.epoch < self._fit.epochs and not self._enough():
            if not self._learn(telling, pace, stopped):
                return False
            self._check_losses()
            assert self._tally is not None
            checked = self._validated(stopped)
            if checked is None:
                pace.now()
                return False
            self._end_epoch(self._all(self._tally).values() | checked)
            if self.epoch == 1:
                self._look_at_warmup()
            telling.tell("epoch", self.epoch, self.step, self._latest(), self._rate())
            pace.epoch()
        self._check_weights()
        return True

    def _look_at_warmup(self) -> None:
        """Tell of a run that is too short for it. Before the first epoch nobody may know how many steps there are."""
        steps = self.step * self._fit.epochs
        if self._ranks.first and self._schedule.short(steps):
            told = "warmup_steps is %d, and epochs like the first make %d steps: the rate won't reach learning_rate"
            logger.warning(told, self._fit.warmup_steps, steps)

    def _enough(self) -> bool:
        return self._fit.early_stopping is not None and self.idle >= self._fit.early_stopping

    def _latest(self) -> dict[str, float]:
        return {name: values[-1] for name, values in self.history.items()}

    def _learn(self, telling: Telling, pace: _Pace, stopped: Callable[[], bool]) -> bool:
        """What is left of an epoch."""
        self.module.train()
        batches = self._drawing.batches(self.epoch, self.batch)
        while True:
            if stopped():
                self._check_losses()
                pace.now()
                return False
            took = self._step(batches, stopped, lambda: (pace.due(self.step + 1), telling.due()))
            if took is None:
                return False
            rows, (keep, tell) = took
            if not rows:
                return True
            telling.add(rows)
            if keep:
                pace.now()
            if tell and self._tally is not None:
                self._check_losses()
                telling.tell("step", self.epoch + 1, self.step, self._all(self._tally).values(), self._rate())

    def _all(self, tally: Tally) -> Tally:
        """Over the rows of all processes."""
        found = self._goal.tally()
        found.restore(self._ranks.joined(tally.kept()), self._device)
        return found

    # ------------------------------------------------------------ a step
    def _step(
        self, batches: Iterator[Batch], stopped: Callable[[], bool], wishes: Callable[[], Sequence[bool]]
    ) -> tuple[int, Sequence[bool]] | None:
        """One step: rows that it learned from, 0 where the epoch has no more, None where it was stopped within.

        Args:
            wishes: what is to be done after it, if anything; they come back as all processes agreed on them.
        """
        weight: Tensor | float = 0.0
        rows = count = 0
        single = self.group == 1 and self._ranks.part.world == 1
        for batch, last in _marked(islice(batches, self.group)):
            if count and stopped():
                self.optimizer.zero_grad()
                return None
            with self._randomness, self._ranks.gathering(self._forward, last, batch):
                part = self._backward(batch, single)
            weight, rows, count = weight + part, rows + (0 if batch.borrowed else len(batch)), count + 1
        if not count:
            return 0, (False, False)
        weight, rows, agreed = self._ranks.agree(weight, rows, wishes())
        if not single:
            self._divide(weight)
        if self._fit.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self._fit.clip_norm)
        factor = self._schedule.factor(self.step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step, self.batch = self.step + 1, self.batch + count
        return rows, agreed

    def _backward(self, batch: Batch, single: bool) -> Tensor | float:
        """Gradients of a batch: of the mean where it makes a step by itself, else of the sum. Gives what it counts."""
        with self._precision():
            outputs = self._goal.outputs(self._forward, batch.inputs)  # type: ignore[arg-type]
        if self._tally is None:
            self._goal.settle(outputs, batch.targets)
            self._tally = self._goal.tally()
        total, weight = self._goal.total(outputs, batch)
        mean = total / weight if not batch.borrowed else total
        self._losses.append(mean.detach())
        if self._device.type == "cpu" or len(self._losses) >= LATE:
            self._check_losses()
        (mean if single else total).backward()  # type: ignore[no-untyped-call]
        if not batch.borrowed:
            self._tally.add(total, weight, outputs, batch.targets)
        return weight

    def _divide(self, weight: Tensor | float) -> None:
        found = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        torch._foreach_div_(found, float(weight))

    def _precision(self) -> AbstractContextManager[Any]:
        if not self._fit.mixed_precision:
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    # ------------------------------------------------------------ numbers that are none
    def _check_losses(self) -> None:
        losses, self._losses = self._losses, []
        values = [float(losses[0])] if len(losses) == 1 else torch.stack(losses).tolist() if losses else []
        for place, value in enumerate(values):
            if not math.isfinite(value):
                raise self._astray(f"the loss became {value}", self.step + 1 - len(values) + 1 + place)

    def _check_weights(self) -> None:
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point() and not bool(self._ranks.whole(tensor).isfinite().all()):
                raise self._astray(f"the weight {name!r} isn't finite any more", self.step)

    def _astray(self, what: str, step: int) -> TrainingError:
        rate, odd = self._rate(), self._supply.odd.told
        return TrainingError(
            f"{what} in epoch {min(self.epoch + 1, self._fit.epochs)}, step {step}" + (f"; {odd}" if odd else ""),
            hint=f"Lower learning_rate (it was {rate:g}), give clip_norm=1.0 or warmup_steps, or look for such values "
            "in the rows; history is kept, and so is the last checkpoint",
        )

    # ------------------------------------------------------------ the end of an epoch
    def _validated(self, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """None where it was stopped within: who goes on begins the validation again."""
        if self._validation is None:
            return {}
        tally = self._goal.tally()
        self.module.eval()
        # the same random numbers each time, in all processes: a loader that shuffles gives all the same batches
        for batch in Drawing(self._validation, self._seed, self._ranks).batches(0, 0):
            if stopped():
                return None
            with torch.no_grad(), self._randomness:
                with self._precision():
                    outputs = self._goal.outputs(self._forward, batch.inputs)  # type: ignore[arg-type]
                total = self._goal.total(outputs, batch)
                if not batch.borrowed:
                    tally.add(*total, outputs, batch.targets)
        return self._all(tally).values("validation_")

    def _end_epoch(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        self.epoch, self.batch, self._tally = self.epoch + 1, 0, None
        if self._fit.early_stopping is None:
            return
        watched = values.get("validation_loss", values["loss"])
        if watched < self.best_loss:
            self.best_loss, self.idle = watched, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        else:
            self.idle += 1

    def result(self) -> dict[str, Tensor]:
        """The weights that the run ends with: of its best epoch, where it stops early."""
        found = self.best if self.best is not None else self.module.state_dict()
        return {name: self._ranks.whole(tensor) for name, tensor in found.items()}

    # ------------------------------------------------------------ for checkpoints
    def _mine(self, tensors: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._ranks.like(tensor, now[name]) for name, tensor in tensors.items()}

    def kept(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that it takes to go on, as tensors and plain values."""
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}
        tally = self._ranks.joined(self._tally.kept()) if self._tally else {}
        tensors |= {f"tally.{name}": tensor for name, tensor in tally.items()}
        drawn, plain = self._randomness.kept()
        tensors |= {f"random.{name}": tensor for name, tensor in drawn.items()}
        made, feed = self._drawing.kept()
        tensors |= {f"feed.{name}": tensor for name, tensor in made.items()}
        state = self.optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    scalars.setdefault(str(index), {})[key] = value
        return {name: self._ranks.whole(tensor) for name, tensor in tensors.items()}, {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "idle": self.idle,
            "best_loss": self.best_loss,
            "history": self.history,
            "random": plain,
            "feed": feed,
            "losses": dict(self._goal.names),
            "optimizer": {"groups": state["param_groups"], "scalars": scalars},
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what was kept."""
        now = self.module.state_dict()
        self.module.load_state_dict(self._mine(_below(tensors, "module."), now))
        best = self._mine(_below(tensors, "best."), now)
        self.best = {name: tensor.to(self._device) for name, tensor in best.items()} or None
        self._goal.restore(facts["losses"], self._device)
        if tally := _below(tensors, "tally."):
            self._tally = self._goal.tally()
            if self._ranks.first:  # what all had seen by then counts once
                self._tally.restore(tally, self._device)
        self._drawing.restore(_below(tensors, "feed."), facts["feed"])
        self._randomness.restore(_below(tensors, "random."), facts["random"])
        state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in facts["optimizer"]["scalars"].items()}
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for name, tensor in _below(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = self._ranks.like(tensor, weights[int(index)])
        groups = [
            {name: tuple(value) if isinstance(value, list) and name != "params" else value for name, value in g.items()}
            for g in facts["optimizer"]["groups"]
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.epoch, self.batch, self.step = facts["epoch"], facts["batch"], facts["step"]
        self.idle, self.best_loss = facts["idle"], facts["best_loss"]
        self.history = {name: list(values) for name, values in facts["history"].items()}


def _marked(batches: Iterator[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each with whether it is the last."""
    before = next(batches, None)
    while before is not None:
        following = next(batches, None)
        yield before, following is None
        before = following


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


class _Pace:
    """When checkpoints are written: after each epoch, unless they take more than 2 % of the time; and as often as was
    asked for."""

    SHARE = 0.02

    def __init__(self, fit: Fit, keep: Callable[[], None], ranks: Ranks) -> None:
        self._steps, self._seconds = fit.checkpoint_steps, fit.checkpoint_seconds
        self._keep, self._ranks = keep, ranks
        self._last, self._cost = time.monotonic(), 0.0

    def now(self) -> None:
        begun = time.monotonic()
        self._keep()
        self._last = time.monotonic()
        self._cost = self._last - begun

    def epoch(self) -> None:
        if self._ranks.agreed(time.monotonic() - self._last >= self._cost / self.SHARE):
            self.now()

    def due(self, step: int) -> bool:
        """After the step with this number, from 1 on."""
        if self._steps is not None and step % self._steps == 0:
            return True
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds
