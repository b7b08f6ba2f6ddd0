"""The events of a run: few while it is long, and what they say of rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiaas_sdk.records.training import Event

__all__ = ["Telling"]

OFTEN, SELDOM = 0.1, 5.0
"""Seconds between two events of steps: at first, and at most; in between a fivehundredth of the time so far."""


class Telling:
    """Tells events, and knows when it is time for one.

    Args:
        told: takes them.
        epochs: of the run. steps: of the run, None where nobody knows.
        done: steps that an earlier run did.
    """

    def __init__(self, told: Callable[[Event], None], epochs: int, steps: int | None, done: int) -> None:
        self._told, self._epochs, self.steps = told, epochs, steps
        self._before, self._rows = done, 0
        self._begun = time.monotonic()
        self._last = float("-inf")

    def add(self, rows: int) -> None:
        """So many rows more are learned from."""
        self._rows += rows

    def due(self) -> bool:
        """Whether it is time to tell of a step."""
        now = time.monotonic()
        return now - self._last >= min(SELDOM, max(OFTEN, (now - self._begun) / 500))

    def tell(self, kind: str, epoch: int, step: int, metrics: Mapping[str, float], rate: float) -> None:
        """Of a step or an epoch; `epoch` and `step` count from 1, `rate` is the learning rate."""
        now = self._last = time.monotonic()
        seconds = max(now - self._begun, 1e-9)
        done = step - self._before
        left = None if self.steps is None or not done else max(0, self.steps - step) * seconds / done
        self._told(
            {
                "type": kind,
                "epoch": epoch,
                "epochs": self._epochs,
                "step": step,
                "steps": self.steps,
                "metrics": dict(metrics),
                "learning_rate": rate,
                "rate": self._rows / seconds,
                "eta": left,
            }
        )

    def other(self, kind: str, **facts: Any) -> None:
        """Of anything else."""
        self._told({"type": kind, **facts})
