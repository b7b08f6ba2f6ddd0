"""The loss and the metrics of one epoch so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aiaas_sdk.backends.torch.training.metrics import Metric

__all__ = ["Tally", "joined"]

LISTS = (".scores", ".true")
"""Ends of the names of what is kept row by row; all else is summed."""
BATCHES, SIZE = 32, 1 << 16
"""Batches that are counted together, and the most numbers of their outputs and targets that are held for it: each call
of PyTorch costs a small model's training as much as some rows do."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """One that isn't counted yet."""

    total: Tensor
    weight: Tensor | float
    outputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        return sum(tensor.numel() for side in (self.outputs, self.targets) for tensor in side.values())

    def fits(self, other: _Batch) -> bool:
        """Whether the rows of both can stand in one tensor."""
        return all(
            tensor.shape[1:] == there[name].shape[1:] and tensor.dtype == there[name].dtype
            for side, there in ((self.outputs, other.outputs), (self.targets, other.targets))
            for name, tensor in side.items()
        )

    def own(self) -> _Batch:
        """In memory that nobody else writes: a user's loader may fill the same arrays again."""
        outputs, targets = ({n: t.clone() for n, t in side.items()} for side in (self.outputs, self.targets))
        return _Batch(self.total, self.weight, outputs, targets)


class Tally:
    """Sums over batches; on the device, so that nobody waits for it at each.

    Args:
        metrics: for each output those that are counted.
    """

    def __init__(self, metrics: Mapping[str, Mapping[str, Metric]]) -> None:
        self._metrics = metrics
        self._sums: dict[str, float] = {}
        self._rows = 0
        self._held: list[_Batch] = []
        self._size = 0

    def add(
        self, total: Tensor, weight: Tensor | float, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> None:
        """A batch: the sum of its losses, and what they count."""
        batch = _Batch(total.detach(), weight, {name: outputs[name].detach() for name in self._metrics}, targets)
        self._rows += len(next(iter(targets.values())))
        if self._held and not batch.fits(self._held[0]):
            self._count()
        size = batch.size
        self._held.append(batch.own() if size <= SIZE else batch)
        self._size += size
        if len(self._held) == BATCHES or self._size > SIZE:
            self._count()

    def _count(self) -> None:
        """What is held."""
        held, self._held, self._size = self._held, [], 0
        if not held:
            return
        self._sum("total", [batch.total for batch in held])
        self._sum("weight", [batch.weight for batch in held])
        with torch.no_grad():
            for name, metrics in self._metrics.items():
                pairs = [(batch.outputs[name], batch.targets[name]) for batch in held]
                whole = [(torch.cat([o for o, _ in pairs]), torch.cat([t for _, t in pairs]))]
                for metric in metrics.values():
                    for pair in whole if metric.exact else pairs:
                        metric.add(*pair)

    def _sum(self, name: str, values: Sequence[Tensor | float]) -> None:
        """One after the other: the sum is the same to the bit, whenever what was held is counted."""
        tensors = [value for value in values if isinstance(value, Tensor)]
        for value in torch.stack(tensors).tolist() if tensors else values:
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def values(self, prefix: str = "") -> dict[str, float]:
        """Loss and metrics by name; those of several outputs have the output's name before them."""
        self._count()
        found = {"loss": self._sums["total"] / self._sums["weight"]} if self._sums else {}
        for output, metrics in self._metrics.items():
            before = f"{output}_" if len(self._metrics) > 1 else ""
            found |= {before + name: metric.value() for name, metric in metrics.items()}
        return {prefix + name: value for name, value in found.items()}

    # ------------------------------------------------------------ for checkpoints
    def kept(self) -> dict[str, Tensor]:
        self._count()
        found = {f"sum.{name}": torch.tensor(value, dtype=torch.float64) for name, value in self._sums.items()}
        for output, metrics in self._metrics.items():
            for name, metric in metrics.items():
                found |= {f"metric.{output}.{name}.{key}": value for key, value in metric.state.items()}
        return {**found, "rows": torch.tensor(self._rows)}

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take up copies of what was kept: metrics add in place."""
        self._rows = int(tensors["rows"])
        self._sums = {name: float(value) for name, value in _below(tensors, "sum.").items()}
        for output, metrics in self._metrics.items():
            for name, metric in metrics.items():
                found = _below(tensors, f"metric.{output}.{name}.")
                metric.state = {key: value.to(device, copy=True) for key, value in found.items()}


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several tallies kept, as one that had seen all their rows would keep it."""
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        there = [part[name] for part in parts if name in part]
        found[name] = torch.cat(there) if name.endswith(LISTS) else torch.stack(there).sum(0)
    return found
