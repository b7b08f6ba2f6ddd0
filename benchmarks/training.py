"""What an epoch of `fit` costs over a bare PyTorch loop with the same settings.

Three classifiers: the digits CNN on real digits, an LSTM on series of 28 steps and a Transformer of two layers on 32
tokens (the lines of the digits, and noise with one token that decides: what they learn has no part in the time). Adam,
0.001, batches of 32, cross-entropy, in an order that is drawn for each epoch; one thread. Both run in turns in one
process. An epoch is the CPU time of this process between the ends of two epochs, which others on the machine disturb
less than wall time; a ratio is the median over the rounds of (ours / bare in that round), and what is left of `fit`
(a copy, a checkpoint, a new version) is spent once. The bare loop computes the loss alone; `fit` computes the accuracy
too, looks at each loss, and keeps checkpoints. `fit` asks PyTorch for its fused Adam; the bare loop takes Adam as it is
by default, and in the last column the fused one, too.

    python benchmarks/training.py            # writes benchmarks/results/training.json
    python benchmarks/training.py --rounds 1 --rows 640
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN
from aiaas_sdk.architectures.rnn import RNN
from aiaas_sdk.architectures.transformer import Transformer

ROOT = Path(__file__).parent.parent
EPOCHS, BATCH = 4, 32
TOKENS = 200

Case = tuple[Callable[[], nn.Module], np.ndarray, np.ndarray]
"""What makes the module, and its rows."""
Turn = tuple[float, float]
"""CPU seconds of an epoch, and of all that isn't one."""


def digits(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of MNIST's training images."""
    sys.path.insert(0, str(ROOT / "examples"))
    import digits_data

    train, _ = digits_data.full()
    return train.images[:rows], train.digits[:rows]


def cases(rows: int) -> dict[str, Case]:
    images, targets = digits(rows)
    tokens = np.random.default_rng(0).integers(0, TOKENS, (rows, 32))
    small = {"kind": "encoder", "vocabulary": TOKENS, "width": 64, "layers": 2, "heads": 4, "context": 64}
    return {
        "cnn": (CNN, images, targets),
        "lstm": (lambda: RNN(features=28, classes=10), images[:, 0], targets),
        "transformer": (lambda: Transformer(**small, classes=4), tokens, tokens[:, 0] % 4),
    }


def bare(case: Case, fused: bool | None = None) -> Turn:
    """What a user would write."""
    begun = time.process_time()
    make, images, targets = case
    torch.manual_seed(0)
    module = make()
    x, y = torch.from_numpy(images), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.001, fused=fused)
    ends = []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        ends.append(time.process_time())
    return turn(begun, ends)


def ours(model: Any, case: Case) -> Turn:
    begun = time.process_time()
    _, x, y = case
    run = model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, seed=0)
    ends = [time.process_time() for event in run.events() if event["type"] == "epoch"]
    run.result().close()
    return turn(begun, ends)


def turn(begun: float, ends: list[float]) -> Turn:
    epoch = statistics.median(later - earlier for earlier, later in pairwise(ends))
    return epoch, time.process_time() - begun - EPOCHS * epoch


def compare(name: str, case: Case, rounds: int) -> dict[str, Any]:
    make, x, _ = case
    with (
        tempfile.TemporaryDirectory() as folder,
        aiaas.load(aiaas.save(make(), Path(folder) / name, example=x[:1])) as model,
    ):
        ours(model, case), bare(case)
        turns = [(ours(model, case), bare(case), bare(case, fused=True)) for _ in range(rounds)]
    ratios = [mine[0] / theirs[0] for mine, theirs, _ in turns]
    return {
        "model": name,
        "rows": len(x),
        "rounds": rounds,
        "seconds": statistics.median(theirs[0] for _, theirs, _ in turns),
        "once": statistics.median(mine[1] for mine, _, _ in turns),
        "ratio": statistics.median(ratios),
        "best": min(ratios),
        "worst": max(ratios),
        "fused": statistics.median(mine[0] / theirs[0] for mine, _, theirs in turns),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "training.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    columns = "".join(f"{name:>8}" for name in ("ratio", "best", "worst", "fused"))
    print(f"{f'fit, an epoch of {asked.rows} rows':32}{'bare, s':>9}{columns}{'once, s':>10}")
    results = []
    for name, case in cases(asked.rows).items():
        found = compare(name, case, asked.rounds)
        results.append(found)
        print(f"{name:32}{found['seconds']:>9.3f}", end="")
        ratios = "".join(f"{found[name]:>8.3f}" for name in ("ratio", "best", "worst", "fused"))
        print(f"{ratios}{found['once']:>10.3f}", flush=True)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
