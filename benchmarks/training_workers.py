"""`fit(workers=2)` against `fit(workers=1)`: an epoch's time, each process with one thread, and what the start costs.

The CNN of the architectures on images of 28 x 28, momentum. The two take turns; a ratio is the median over the rounds
of (two / one in that round), of epochs after the first. 0.5 would be perfect, and needs two idle cores. The start is
the time from `fit` to the event "started".

    python benchmarks/training_workers.py            # writes benchmarks/results/training-workers.json
    python benchmarks/training_workers.py --rounds 1 --rows 2048
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aiaas_sdk as aiaas

ROOT = Path(__file__).parent.parent
EPOCHS = 4
BATCH_SIZES = (32, 256)


def turn(model: Any, x: Any, y: Any, batch_size: int, workers: int) -> dict[str, float]:
    """Seconds of an epoch, of the start, and of the end."""
    begun = time.time()
    run = model.fit(x, y, epochs=EPOCHS, batch_size=batch_size, optimizer="momentum", seed=1, workers=workers)
    run.result().close()
    events = list(run.events())
    ends = [event["time"] for event in events if event["type"] == "epoch"]
    return {
        "epoch": statistics.median(later - earlier for earlier, later in pairwise(ends)),
        "start": events[0]["time"] - begun,
        "end": events[-1]["time"] - ends[-1],
        "loss": run.history["loss"][-1],
    }


def compare(model: Any, rows: int, batch_size: int, rounds: int) -> dict[str, Any]:
    drawn = np.random.default_rng(0)
    y = drawn.integers(0, 10, rows)
    kinds = drawn.random((10, 1, 28, 28), np.float32)
    x = kinds[y] + 0.3 * drawn.standard_normal((rows, 1, 28, 28), np.float32)
    found = []
    for number in range(rounds):
        order = (1, 2) if number % 2 else (2, 1)
        found.append({workers: turn(model, x, y, batch_size, workers) for workers in order})
    for each in found:
        assert abs(each[1]["loss"] - each[2]["loss"]) < 1e-2, each
    return {
        "batch_size": batch_size,
        "rows": rows,
        "rounds": rounds,
        "seconds": {
            f"{what}, {workers}": statistics.median(each[workers][what] for each in found)
            for what in ("epoch", "start", "end")
            for workers in (1, 2)
        },
        "ratio": statistics.median(each[2]["epoch"] / each[1]["epoch"] for each in found),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "training-workers.json")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two processes need a core each")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = aiaas.create(
            f"torch:{folder}/cnn",
            architecture="cnn",
            inputs={"images": ("FP32", [-1, 1, 28, 28])},
            labels=list("0123456789"),
            seed=0,
        )
        with model:
            results = [compare(model, options.rows, size, options.rounds) for size in BATCH_SIZES]
    for result in results:
        seconds = ", ".join(f"{name} {value:.2f} s" for name, value in result["seconds"].items())
        ratio, load = f"two / one {result['ratio']:.2f}", f"load {result['load']:.1f}"
        print(f"batches of {result['batch_size']}: {ratio}   ({seconds}; {load})")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
