"""What a module is trained towards: its outputs, named, against the targets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aiaas_sdk.backends.torch import programs
from aiaas_sdk.backends.torch.probing import flat_outputs
from aiaas_sdk.backends.torch.training.losses import Loss, loss_of, named
from aiaas_sdk.backends.torch.training.metrics import metrics_of
from aiaas_sdk.backends.torch.training.ranks import Ranks
from aiaas_sdk.backends.torch.training.supply import Batch
from aiaas_sdk.backends.torch.training.tally import Tally
from aiaas_sdk.errors import AiaasError, InputError, TrainingError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.training import Fit

__all__ = ["Goal"]


class Goal:
    """Losses and metrics of a run; which ones "auto" means is settled by the first batch."""

    def __init__(self, fit: Fit, info: ModelInfo, ranks: Ranks) -> None:
        self._fit, self._info, self._ranks = fit, info, ranks
        self._inputs = [spec.name for spec in info.inputs]
        self._outputs = [spec.name for spec in info.outputs]
        self._losses: dict[str, Loss] = {}

    @property
    def names(self) -> Mapping[str, str]:
        """The loss of each output that has targets."""
        return {output: loss.name for output, loss in self._losses.items()}

    def outputs(self, module: torch.nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What the module gives, by output name.

        Raises:
            TrainingError: it raised.
        """
        try:
            found = flat_outputs(programs.call(module, self._inputs, [inputs[name] for name in self._inputs]))
        except AiaasError:
            raise
        except Exception as error:
            raise TrainingError(
                f"the module raised {type(error).__name__} on a batch of {len(next(iter(inputs.values())))} rows: "
                f"{str(error).splitlines()[0][:300] if str(error) else 'no message'}"
            ) from error
        if len(self._outputs) == 1 and len(found) == 1:
            return {self._outputs[0]: next(iter(found.values()))}
        return {name: found[name] for name in self._outputs}

    def settle(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Choose the losses, by a first batch."""
        for name, target in targets.items():
            if name in self._losses:
                continue
            output, labels = outputs[name], bool(self._info.labels)
            asked = self._fit.loss if isinstance(self._fit.loss, str) else "mse"
            # one process may see rows that look like one-hot ones, and another rows that don't
            settled = self._ranks.one(named(asked, output, target, labels), "mse")
            self._losses[name] = loss_of(self._fit, settled, name, output.device)

    def restore(self, names: Mapping[str, str], device: torch.device) -> None:
        """Take the losses that an earlier run settled on."""
        self._losses = {output: loss_of(self._fit, name, output, device) for output, name in names.items()}

    def tally(self) -> Tally:
        """An empty one; after `settle`."""
        return Tally({o: metrics_of(self._fit.metrics, loss.name, o) for o, loss in self._losses.items()})

    def total(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The sum of the losses of a batch, and what it is divided by to be the mean.

        Of several outputs the means add up, and a row counts one. What is borrowed counts nothing.
        """
        if {*batch.targets} != {*self._losses}:
            raise InputError(f"targets came for {', '.join(batch.targets)}, and before for {', '.join(self._losses)}")
        parts = [
            (loss.total(outputs[name].float(), batch.targets[name]), loss.weight(batch.targets[name]))
            for name, loss in self._losses.items()
        ]
        if batch.borrowed:
            parts = [(total * 0.0, 0.0) for total, _ in parts]
        if len(parts) == 1:
            return parts[0]
        rows = 0 if batch.borrowed else len(batch)
        *weights, everybody = self._ranks.sums([*(weight for _, weight in parts), rows])
        means = [total / weight for (total, _), weight in zip(parts, weights, strict=True)]
        return torch.stack(means).sum() * everybody, rows
