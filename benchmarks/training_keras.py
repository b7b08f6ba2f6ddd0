"""What an epoch of `fit` costs against Keras on its torch backend: the digits CNN on real digits.

Each in a process of its own, which takes turns with the others: the same layers, Adam 0.001 with epsilon 1e-8, batches
of 32 in an order that is drawn for each epoch, cross-entropy of logits, the accuracy reported, one thread, nothing to
validate with. An epoch is the time between the ends of two, so that nothing of the first one counts, where Keras builds
its functions and `fit` copies its model. A ratio is the median over the rounds of (ours / theirs in that round).

Keras is asked in two ways: with all that it has by default (channels last, a progress bar, into a file that nobody
reads), and without a bar and with the channels first, as PyTorch has them. `jit_compile` is off by default on this
backend. `fit` is asked as it is by default, and keeps its checkpoints. Needs .peers/keras (`scripts/peers.sh keras`).

    python benchmarks/training_keras.py            # writes benchmarks/results/training-keras.json
    python benchmarks/training_keras.py --rounds 1 --rows 640
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".peers" / "keras" / "bin" / "python"
EPOCHS = 4
BATCH = 32
CLIENTS = ("ours", "keras", "keras, channels first")
FACTS = ("parameters", "loss", "accuracy")

Moment = tuple[float, float]
"""Wall and CPU seconds of this process."""
Fitted = tuple[list[Moment], dict[str, float]]
"""The end of each epoch, and what can be compared of a run."""


def now() -> Moment:
    return time.perf_counter(), time.process_time()


# ---------------------------------------------------------------- each in its own process
def ours(images: np.ndarray, digits: np.ndarray) -> Callable[[], Fitted]:
    import torch

    import aiaas_sdk as aiaas
    from aiaas_sdk.architectures.cnn import CNN

    torch.set_num_threads(1)
    folder = tempfile.mkdtemp(dir=os.environ["SCRATCH"])
    address = aiaas.save(CNN(), Path(folder) / "digits", example=images[:1])
    model = aiaas.load(address)

    def call() -> Fitted:
        run = model.fit(images, digits, epochs=EPOCHS, batch_size=BATCH, seed=0)
        ends = [now() for event in run.events() if event["type"] == "epoch"]
        with run.result():
            count = sum(weight.numel() for weight in CNN().parameters())
            return ends, {"parameters": count, **{name: values[-1] for name, values in run.history.items()}}

    return call


def theirs(images: np.ndarray, digits: np.ndarray, first: bool) -> Callable[[], Fitted]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    torch.set_num_threads(1)
    keras.config.set_image_data_format("channels_first" if first else "channels_last")
    images = images if first else images.transpose(0, 2, 3, 1).copy()
    options: dict[str, Any] = {"verbose": 0} if first else {}

    def call() -> Fitted:
        keras.utils.set_random_seed(0)
        module = keras.Sequential(
            [
                keras.Input(images.shape[1:]),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        module.compile(
            optimizer=keras.optimizers.Adam(0.001, epsilon=1e-8),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        ends: list[Moment] = []
        watching = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(now()))
        ran = module.fit(images, digits, epochs=EPOCHS, batch_size=BATCH, callbacks=[watching], **options)
        found = {name: values[-1] for name, values in ran.history.items()}
        return ends, {"parameters": module.count_params(), **found}

    return call


def take_turns(name: str, data: Path) -> None:
    """Each line on stdin is a turn; what it found goes to stdout as JSON."""
    with np.load(data) as rows:
        images, digits = rows["images"], rows["digits"]
    call = ours(images, digits) if name == "ours" else theirs(images, digits, "first" in name)
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    for _ in sys.stdin:
        ends, found = call()
        for place, kind in enumerate(("wall", "cpu")):
            found[kind] = statistics.median(later[place] - earlier[place] for earlier, later in pairwise(ends))
        print(json.dumps(found), file=answers, flush=True)


# ---------------------------------------------------------------- the rounds
@contextlib.contextmanager
def client(name: str, data: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """A turn of a client's, in a process that ends with this."""
    python = sys.executable if name == "ours" else str(PEER)
    process = subprocess.Popen(
        [python, __file__, "--client", name, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SCRATCH": str(data.parent)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said, heard = process.stdin, process.stdout

    def turn() -> dict[str, float]:
        print(file=said, flush=True)
        text = heard.readline()
        if not text:
            raise SystemExit(f"{name} ended with {process.wait()}")
        found: dict[str, float] = json.loads(text)
        return found

    try:
        yield turn
    finally:
        process.kill()
        process.communicate()


def measured(rows: int, rounds: int) -> list[dict[str, dict[str, float]]]:
    """The rounds: what each client found. They begin with another one each time."""
    sys.path.insert(0, str(ROOT / "examples"))
    import digits_data

    train, _ = digits_data.full()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        data = Path(folder) / "digits.npz"
        np.savez(data, images=train.images[:rows], digits=train.digits[:rows])
        turns = {name: stack.enter_context(client(name, data)) for name in CLIENTS}
        for turn in turns.values():
            turn()
        found = []
        for number in range(rounds):
            cut = number % len(CLIENTS)
            found.append({name: turns[name]() for name in CLIENTS[cut:] + CLIENTS[:cut]})
        return found


def report(found: list[dict[str, dict[str, float]]], rows: int) -> dict[str, Any]:
    counts = {each["parameters"] for turns in found for each in turns.values()}
    assert len(counts) == 1, f"the models differ in parameters: {counts}"
    print(f"{f'an epoch of {rows} rows':26}{'wall, s':>9}{'CPU, s':>9}", end="")
    print(f"{'ours / it':>11}{'CPU':>7}{'best':>7}{'worst':>7}")
    told: dict[str, Any] = {"rows": rows, "rounds": len(found), "load": os.getloadavg()[0]}
    for name in CLIENTS:
        seconds = {kind: statistics.median(turns[name][kind] for turns in found) for kind in ("wall", "cpu")}
        told[name] = {**{fact: found[-1][name][fact] for fact in FACTS}, "seconds": seconds}
        print(f"{name:26}{seconds['wall']:>9.3f}{seconds['cpu']:>9.3f}", end="")
        if name != "ours":
            ratios = {kind: [turns["ours"][kind] / turns[name][kind] for turns in found] for kind in ("wall", "cpu")}
            told[name]["ratio"] = {kind: statistics.median(values) for kind, values in ratios.items()}
            best, worst = min(ratios["cpu"]), max(ratios["cpu"])
            told[name]["ratio"] |= {"cpu, best": best, "cpu, worst": worst}
            middle = told[name]["ratio"]
            print(f"{middle['wall']:>11.3f}{middle['cpu']:>7.3f}{best:>7.3f}{worst:>7.3f}", end="")
        print()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "training-keras.json")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        return take_turns(asked.client[0], Path(asked.client[1]))
    if not PEER.exists():
        raise SystemExit(f"{PEER} isn't there: run scripts/peers.sh keras")
    told = report(measured(asked.rows, asked.rounds), asked.rows)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(told, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
