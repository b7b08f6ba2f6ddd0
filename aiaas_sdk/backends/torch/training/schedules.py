"""How the learning rate moves: a factor for each step, a pure function of its number.

With p the part of the run that lies behind (0 at the first step, 1 after the last), the factor is

| name | factor |
|---|---|
| constant | 1 |
| linear | 1 - p |
| cosine | (1 + cos(pi p)) / 2 (Loshchilov and Hutter 2017, without restarts) |
| step | 1, then 0.1 from a third, 0.01 from two thirds of the run on |
| exponential | 0.01^p |
| onecycle | up from 1/25 to 1 over the first 30 %, then down to 1/250000, along cosines (Smith and Topin 2018, with the values of PyTorch's OneCycleLR; momentum stays) |

Before that come `warmup` steps with the factors 1/n, 2/n, ... n/n.
"""  # noqa: E501  (a table's row is a line)

from __future__ import annotations

import math
from collections.abc import Callable

from aiaas_sdk.errors import ConfigError

__all__ = ["CURVES", "Schedule"]


def _one_cycle(part: float) -> float:
    if part < 0.3:
        return _along(1 / 25, 1.0, part / 0.3)
    return _along(1.0, 1 / 250_000, (part - 0.3) / 0.7)


def _along(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


CURVES: dict[str, Callable[[float], float]] = {
    "constant": lambda part: 1.0,
    "linear": lambda part: 1 - part,
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "step": lambda part: float(0.1 ** min(2, int(3 * part))),
    "exponential": lambda part: float(0.01**part),
    "onecycle": _one_cycle,
}


class Schedule:
    """Factors of the learning rate.

    Args:
        name: of CURVES.
        warmup: steps.
        steps: of the whole run; None where nobody knows.

    Raises:
        ConfigError: the curve needs the number of steps.
    """

    def __init__(self, name: str, warmup: int, steps: int | None) -> None:
        if steps is None and name != "constant":
            raise ConfigError(
                f"the schedule {name!r} needs to know how many steps there are",
                hint='Give rows that have a length, or schedule="constant"',
            )
        self._curve, self._warmup, self._steps = CURVES[name], warmup, steps

    def short(self, steps: int) -> bool:
        """Whether a run of so many steps ends within the warm-up."""
        return steps < self._warmup

    def factor(self, step: int) -> float:
        """Of the step with this number, from 0 on."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        if self._steps is None:
            return 1.0
        return self._curve(min(1.0, (step - self._warmup) / max(1, self._steps - self._warmup)))
