"""What the loop asks of the processes that train together: `Alone`, and `Together` of several.

Of a batch each process takes its share of the rows (`supply.Part`). Its gradients are of the *sum* of its losses; DDP
and FSDP give the mean over processes, so that divided by (what all rows count / processes) it is the gradient of the
mean over the whole batch, however unevenly the rows fell. Whatever depends on the clock (a checkpoint is due, somebody
wants the run to end) is agreed on, once a step, in the same small message as what the rows count: all processes do the
same things in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from aiaas_sdk.backends.torch.layout import channels_last
from aiaas_sdk.backends.torch.training.randomness import Randomness
from aiaas_sdk.backends.torch.training.supply import ALONE, Batch, Part
from aiaas_sdk.backends.torch.training.tally import joined

__all__ = ["Alone", "Ranks", "Together"]

SILENCE = timedelta(minutes=30)
"""How long a process waits for the others: one that dies is found at once, this is for one that hangs."""


class Alone:
    """One process: nobody to agree with."""

    part: Part = ALONE
    first = True
    """Whether this is the process that tells, and writes."""
    alike = True
    """Whether each process has every tensor whole."""

    def spread(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module as it is trained here."""
        return channels_last(module)

    def forward(self, forward: Any) -> Any:
        """What computes outputs, so that gradients become everybody's."""
        return forward

    def gathering(self, forward: Any, last: bool, batch: Batch) -> AbstractContextManager[Any]:
        """Round the gradients of one batch; `last`: a step follows."""
        return nullcontext()

    def randomness(self, seed: int, device: torch.device, everything: bool) -> Randomness:
        """Random numbers of the rows of this process."""
        return Randomness(seed, device, everything)

    # ------------------------------------------------------------ what all know
    def agree(
        self, weight: Tensor | float, rows: int, wishes: Sequence[bool]
    ) -> tuple[Tensor | float, int, Sequence[bool]]:
        """What the gradients of a step are divided by, the rows of all, and the first's wishes."""
        return weight, rows, wishes

    def agreed(self, wish: bool) -> bool:
        """The first's."""
        return wish

    def one(self, name: str, otherwise: str) -> str:
        """The name that all have; `otherwise` where they differ."""
        return name

    def sums(self, weights: Sequence[Tensor | float]) -> Sequence[Tensor | float]:
        return weights

    def joined(self, kept: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A tally's state over all rows."""
        return kept

    # ------------------------------------------------------------ tensors
    def whole(self, tensor: Tensor) -> Tensor:
        """All of a tensor of which each process may have a part."""
        return tensor

    def like(self, tensor: Tensor, kept: Tensor) -> Tensor:
        """Of a whole tensor what this process keeps of `kept`."""
        return tensor


Ranks = Alone
"""What the loop is given."""


class Together(Alone):
    """One of several processes; its process group is there.

    Args:
        memory: bytes that this process has for weights: a module that takes more is sharded (`sharding`).
        asked: whether somebody wants the run to end.
    """

    def __init__(self, part: Part, device: torch.device, memory: int, asked: Callable[[], bool]) -> None:
        self.part, self.first = part, part.rank == 0
        self._device, self._memory, self._asked = device, memory, asked
        self._stop = self._borrowed = False

    def stopped(self) -> bool:
        """Whether all have agreed to end."""
        return self._stop

    def spread(self, module: torch.nn.Module) -> torch.nn.Module:
        from aiaas_sdk.backends.torch.training import normalizing, sharding

        module = normalizing.together(module, lambda: self._borrowed)
        self.alike = not sharding.too_large(module, self._memory)
        return module if self.alike else sharding.shard(module, self._device, self.part.world)

    def forward(self, forward: Any) -> Any:
        if not self.alike:
            return forward
        from torch.nn.parallel import DistributedDataParallel

        # Buffers are equal already: batch normalisation counts all rows. A layer that a batch doesn't reach is no
        # error, as it is none for one process.
        return DistributedDataParallel(forward, forward_sync_buffers=False, find_unused_parameters=True)

    def gathering(self, forward: Any, last: bool, batch: Batch) -> AbstractContextManager[Any]:
        self._borrowed = batch.borrowed
        if not self.alike:
            forward.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else forward.no_sync()

    def randomness(self, seed: int, device: torch.device, everything: bool) -> Randomness:
        return _Apart(self.part.rank, seed, device, everything)

    # ------------------------------------------------------------ what all know
    def agree(
        self, weight: Tensor | float, rows: int, wishes: Sequence[bool]
    ) -> tuple[Tensor | float, int, Sequence[bool]]:
        told = wishes if self.first else [False] * len(wishes)
        numbers = torch.tensor([0.0, rows, self._asked(), *told], dtype=torch.float64, device=self._device)
        numbers[0] = weight
        torch.distributed.all_reduce(numbers)
        total, count, stop, *wanted = numbers.tolist()
        self._stop = self._stop or stop > 0
        return total / self.part.world, int(count), [wish > 0 for wish in wanted]

    def agreed(self, wish: bool) -> bool:
        found = torch.tensor([float(wish)], device=self._device)
        torch.distributed.broadcast(found, 0)
        return bool(found.item())

    def one(self, name: str, otherwise: str) -> str:
        return name if len(set(self._all(name))) == 1 else otherwise

    def sums(self, weights: Sequence[Tensor | float]) -> Sequence[Tensor | float]:
        found = torch.stack([torch.as_tensor(w, dtype=torch.float64, device=self._device) for w in weights])
        torch.distributed.all_reduce(found)
        return [number.to(torch.float32) for number in found]

    def joined(self, kept: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return joined(self._all({name: tensor.cpu() for name, tensor in kept.items()}))

    def _all(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.part.world
        torch.distributed.all_gather_object(found, value)
        return found

    # ------------------------------------------------------------ tensors
    def whole(self, tensor: Tensor) -> Tensor:
        if self.alike:
            return tensor
        from aiaas_sdk.backends.torch.training import sharding

        return sharding.whole(tensor)

    def like(self, tensor: Tensor, kept: Tensor) -> Tensor:
        if self.alike:
            return tensor
        from aiaas_sdk.backends.torch.training import sharding

        return sharding.like(tensor, kept)


class _Apart(Randomness):
    """Each process draws other numbers (its rows are others), from a state that is the same in all: it moves on by one
    number each time, so that one process's checkpoint is everybody's, however many go on."""

    def __init__(self, rank: int, seed: int, device: torch.device, everything: bool) -> None:
        self._rank = rank
        super().__init__(seed, device, everything)

    def __enter__(self) -> Randomness:
        super().__enter__()
        drawn = int(torch.randint(1 << 62, ()))
        self._common = self._now()
        self._seed_all(drawn ^ self._rank)
        return self

    def __exit__(self, *exc: object) -> None:
        self._put(self._common)
        super().__exit__(*exc)
