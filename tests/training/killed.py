"""Runs in processes that a test kills: for each line "ADDRESS KIND new|resume free|held" one is forked.

One that is held goes no further than its last step: however fast the machine is, it is there to be killed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.training import running
from tests.training.modules import flowers


class Shaky(Dataset[Any]):
    """Rows that draw from all three generators each time they are read."""

    def __init__(self) -> None:
        self._x, self._y = flowers(240)

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, place: int) -> Any:
        moved = random.random() + np.random.rand() + torch.rand(()).item()
        return self._x[place] + np.float32(0.01 * moved), int(self._y[place])


def rows(kind: str) -> tuple[Any, Any]:
    if kind == "dataset":
        return Shaky(), None
    if kind == "loader":
        return DataLoader(Shaky(), batch_size=16, shuffle=True), None
    if kind == "generator":
        return DataLoader(Shaky(), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(4)), None
    return flowers(240)


def say(*words: object) -> None:
    """A line in one piece: the run's thread speaks, too, and nobody may be killed in the middle of one."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def hold(_: Any) -> NoReturn:
    """In place of saving a new version."""
    say("kept all")
    time.sleep(60)
    os._exit(1)


def train(address: str, kind: str, how: str, held: str) -> None:
    torch.set_num_threads(1)
    if held == "held":
        running._Run.save = hold  # type: ignore[method-assign]  # this process ends with its run
    x, y = rows(kind)
    with aiaas.load(address) as model:
        run = model.fit(
            x,
            y,
            epochs=6,
            batch_size=16,
            optimizer="adam",
            learning_rate=0.01,
            seed=5,
            validation=flowers(50, 1),
            schedule="cosine",
            warmup_steps=5,
            clip_norm=1.0,
            early_stopping=4,
            checkpoint_steps=4,
            resume=how == "resume",
            metrics=["accuracy", "auc"],
        )
        for event in run.events():
            if event["type"] == "started":
                say("started", event["step"])
            if event["type"] == "checkpoint":
                say("kept", event["step"])
        run.result().close()
        say("version", list(run.events())[-1]["address"])
        say("history", repr(run.history))


def main() -> None:
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # what that imports is imported once
    for line in sys.stdin:
        child = os.fork()
        if not child:
            train(*line.split())
            os._exit(0)
        say("began", child)
        os.waitpid(child, 0)
        say("ended", child)


if __name__ == "__main__":
    main()
