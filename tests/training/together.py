"""Settings that one process and several must agree on, trained by what torchrun starts: together.py ADDRESS FOLDER.

One start serves all of them: the loop, the sums and DDP are the real ones, and only the messages to a run are left out.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

import aiaas_sdk as aiaas
from aiaas_sdk import bundle
from aiaas_sdk.backends.torch.training import running, supply
from aiaas_sdk.backends.torch.training.checkpoints import Shelf
from aiaas_sdk.backends.torch.training.ranks import Alone, Together
from aiaas_sdk.backends.torch.training.supply import Part
from aiaas_sdk.records.training import OPTIMIZERS, Fit
from aiaas_sdk.rows import Data, Feed, rows
from tests.training.modules import Twofold, flowers
from tests.training.worker_modules import Level

COMMON: dict[str, Any] = {
    "resume": True,
    "epochs": 2,
    "batch_size": 25,
    "seed": 3,
    "validation": 0.2,
    "metrics": ["accuracy", "auc"],
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    "accumulated": {"accumulate": 3, "optimizer": "nesterov", "schedule": "cosine", "warmup_steps": 2},
    "clipped": {"clip_norm": 0.05, "optimizer": "sgd", "learning_rate": 0.5},
    "weighted": {"class_weights": [0.2, 1.0, 3.0], "optimizer": "momentum", "accumulate": 2},
    "stopping": {"epochs": 6, "early_stopping": 1, "learning_rate": 0.05},
    "batches": {"validation": None, "optimizer": "momentum", "batch_size": 5},
    "twofold": {"optimizer": "momentum", "validation": None, "metrics": ["mse"]},
    "sharded": {"optimizer": "adamw", "clip_norm": 0.5, "accumulate": 2, "early_stopping": 3},
}
"""By name what differs from COMMON. "batches" is handed batches, two of them with fewer rows than there are processes;
"sharded" goes by FSDP."""
CUT = {"sharded": 3, "stopping": 20, "gd": 1}
"""Those that are stopped after so many steps, and go on."""


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = flowers(60)
    return [(x[a:b], y[a:b]) for a, b in pairwise((0, 7, 9, 30, 31, 60))]


def both() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """For two outputs; of one of them some rows aren't looked at."""
    x, y = flowers(150)
    return {"a": x, "b": x[:, 1:]}, {"kind": np.where(np.arange(150) % 7 < 2, -100, y), "size": x[:, :1] * 3}


def train(address: str, name: str, ranks: Alone, folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Where the new version of the case's bundle is, and the history, from the process that tells."""
    kind = {"batches": "plain", "twofold": "twofold"}.get(name, "normed")
    address += kind
    path = Path(address.removeprefix("torch:"))
    with aiaas.load(f"{address}@1") as model:
        info = model.info()
    found = bundle.read(bundle.locate(path, "1"), bundle.Trust.of(False), program=False)
    parent = running.Parent(path, found, info, Twofold if kind == "twofold" else Level, True, torch.device("cpu"))
    data = Data(Feed(batches()) if name == "batches" else rows(*(both() if kind == "twofold" else flowers(253)), info))
    events: list[Any] = []
    fit = Fit(**{**COMMON, **CASES[name]})
    shelf = Shelf(folder / f"{name}-{ranks.part.world}")
    shelf.folder.mkdir(exist_ok=True)
    stopped = getattr(ranks, "stopped", lambda: False)
    made = running.run(parent, fit, data, supply.facts(data), shelf, events.append, stopped, ranks)
    history: dict[str, Any] = {key: list(values) for key, values in events[0]["history"].items()}
    for event in events:
        for key, value in event["metrics"].items() if event["type"] == "epoch" else ():
            history.setdefault(key, []).append(value)
    return made, history


def main(address: str, folder: Path) -> NoReturn:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    part = Part(torch.distributed.get_rank(), torch.distributed.get_world_size())
    found = {}
    for name in CASES:
        memory = 1 if name == "sharded" else 1 << 40
        if name in CUT:
            steps = count(1)
            cut = Together(part, torch.device("cpu"), memory, lambda: next(steps) >= CUT[name])  # noqa: B023
            assert train(address, name, cut, folder)[0] is None
            torch.distributed.barrier()  # the first has written it
        together = Together(part, torch.device("cpu"), memory, lambda: False)
        found[name] = train(address, name, together, folder)
        assert together.alike is (name != "sharded")
    if part.rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
    # as in `rank.main`: threads of torch's that still run while the interpreter ends could crash it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
