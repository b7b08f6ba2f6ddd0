"""Batches as a run reads them: a user's own code that makes rows draws from random numbers that come back, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from aiaas_sdk.backends.torch.training.randomness import Randomness
from aiaas_sdk.backends.torch.training.ranks import Ranks
from aiaas_sdk.backends.torch.training.supply import Batch, Supply

__all__ = ["Drawing"]

State = tuple[dict[str, Tensor], dict[str, Any]]


class Drawing:
    """Reads a supply.

    Rows in memory need no state: seed and epoch decide their order. What a user's code makes is read with random
    numbers of its own, which the model's don't mix with; what is read ahead is read again from the beginning of the
    epoch by who goes on.
    """

    def __init__(self, supply: Supply, seed: int, ranks: Ranks) -> None:
        self._supply = supply
        # who reads all batches and takes its rows of each has to see them in one order with the others
        own = Randomness if supply.replayed else ranks.randomness
        self._own = own(seed, torch.device("cpu"), everything=True) if supply.foreign else None
        self._start: State = ({}, {})

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Those of an epoch, without the first ones."""
        if self._own is None:
            return self._supply.epoch(epoch, skip)
        if not skip:
            self._start = self._own.kept()
            self._keep_generator()
        elif self._supply.replayed:
            self._own.restore(*self._start)
            self._put_generator()
            return islice(self._drawn(self._supply.epoch(epoch)), skip, None)
        return self._drawn(self._supply.epoch(epoch, skip))

    def _drawn(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        assert self._own is not None
        while True:
            with self._own:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    # ------------------------------------------------------------ a loader's own generator
    def _keep_generator(self) -> None:
        if (generator := getattr(self._supply, "generator", None)) is not None:
            self._start[0]["generator"] = generator.get_state()

    def _put_generator(self) -> None:
        generator = getattr(self._supply, "generator", None)
        if generator is not None and "generator" in self._start[0]:
            generator.set_state(self._start[0]["generator"])

    # ------------------------------------------------------------ for checkpoints
    def kept(self) -> State:
        """Where it stands, and where it stood at the beginning of the epoch."""
        if self._own is None:
            return {}, {}
        tensors, facts = self._own.kept()
        found = {f"now.{name}": tensor for name, tensor in tensors.items()}
        found |= {f"start.{name}": tensor for name, tensor in self._start[0].items()}
        if (generator := getattr(self._supply, "generator", None)) is not None:
            found["now.generator"] = generator.get_state()
        return found, {"now": facts, "start": self._start[1]}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what was kept."""
        if self._own is None:
            return
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "start": {}}
        for name, tensor in tensors.items():
            part, rest = name.split(".", 1)
            parts[part][rest] = tensor
        self._own.restore(parts["now"], facts["now"])
        self._start = parts["start"], facts["start"]
        if (generator := getattr(self._supply, "generator", None)) is not None and "generator" in parts["now"]:
            generator.set_state(parts["now"]["generator"])
