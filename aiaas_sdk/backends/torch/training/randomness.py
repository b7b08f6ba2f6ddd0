"""The random numbers of a run: its own, whoever else draws some in this process.

PyTorch, numpy and Python draw from one generator for the whole process. While a run computes, its own states stand
there, and what stood there before comes back. Runs in one process take turns (`chance`), step by step, also with who
makes a module; who else draws in the midst of a step, in another thread, draws from the run's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aiaas_sdk.backends.torch import chance

__all__ = ["Randomness", "order"]


def order(count: int, seed: int, epoch: int, device: str = "cpu") -> torch.Tensor:
    """The rows of an epoch in another order each time: a permutation that seed and epoch alone decide."""
    generator = torch.Generator(device).manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    return torch.randperm(count, generator=generator, device=device)


class Randomness:
    """Use it as `with`: within, the run's own random numbers are drawn.

    Args:
        seed: of the first state.
        device: CUDA's generators come in where it is one.
        everything: also numpy's and Python's, for a user's own code that makes rows.
    """

    def __init__(self, seed: int, device: torch.device, everything: bool) -> None:
        self._device, self._everything = device, everything
        self._state = self._seeded(seed)
        self._outside: Mapping[str, Any] = {}

    def _seeded(self, seed: int) -> Mapping[str, Any]:
        with chance.turn:
            outside = self._now()
            try:
                self._seed_all(seed)
                return self._now()
            finally:
                self._put(outside)

    def _seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)
        if self._everything:
            random.seed(seed)
            np.random.seed(seed % (1 << 32))

    def __enter__(self) -> Randomness:
        chance.turn.acquire()
        self._outside = self._now()
        self._put(self._state)
        return self

    def __exit__(self, *exc: object) -> None:
        self._state = self._now()
        self._put(self._outside)
        chance.turn.release()

    def _now(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"torch": torch.get_rng_state()}
        if self._device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self._device)
        if self._everything:
            found["numpy"], found["python"] = np.random.get_state(), random.getstate()
        return found

    def _put(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._device)
        if "numpy" in state:
            np.random.set_state(state["numpy"])
            random.setstate(state["python"])

    # ------------------------------------------------------------ for checkpoints
    def kept(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The state as tensors and plain values."""
        tensors = {name: self._state[name] for name in ("torch", "cuda") if name in self._state}
        if not self._everything:
            return tensors, {}
        kind, keys, *rest = self._state["numpy"]
        tensors["numpy"] = torch.from_numpy(keys.copy())
        version, numbers, gauss = self._state["python"]
        return tensors, {"numpy": [kind, *rest], "python": [version, list(numbers), gauss]}

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Take up a state that was kept."""
        state: dict[str, Any] = {name: tensors[name] for name in ("torch", "cuda") if name in tensors}
        if self._everything:
            kind, *rest = facts["numpy"]
            state["numpy"] = (kind, tensors["numpy"].numpy(), *rest)
            version, numbers, gauss = facts["python"]
            state["python"] = (version, tuple(numbers), gauss)
        self._state = state
