"""Each architecture learns from real rows, and better than a simple method does with the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from tests.architectures.conftest import Series, Words, naive_bayes, nearest

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]
SPEAKERS = list("123456789")
SERIES = {"inputs": ("FP32", [-1, -1, 12]), "mask": ("INT64", [-1, -1])}
TEXT = {"input_ids": ("INT64", [-1, -1]), "attention_mask": ("INT64", [-1, -1])}


def accuracy(model: Any, x: dict[str, np.ndarray], y: np.ndarray) -> float:
    return float(np.mean(model.predict(x).array.argmax(-1) == y))


def test_an_lstm_knows_speakers_better_than_the_nearest_neighbour(
    tmp_path: Path, vowels: tuple[Series, Series]
) -> None:
    learned, held = vowels
    baseline = nearest(learned, held)
    with aiaas.create(
        f"torch:{tmp_path / 'm'}", architecture="rnn", inputs=SERIES, labels=SPEAKERS, config={"kind": "lstm"}, seed=0
    ) as model:
        run = model.fit({"inputs": learned.x, "mask": learned.mask}, learned.y, epochs=60, batch_size=32, seed=0)
        with run.result() as better:
            found = accuracy(better, {"inputs": held.x, "mask": held.mask}, held.y)
    assert baseline > 0.9
    assert found > baseline


def test_a_transformer_counts_syllables_better_than_naive_bayes(tmp_path: Path, syllables: tuple[Words, Words]) -> None:
    learned, held = syllables
    baseline = naive_bayes(learned, held)
    config = {"vocabulary": 27, "width": 64, "layers": 2}
    with aiaas.create(
        f"torch:{tmp_path / 'm'}", architecture="transformer", inputs=TEXT, labels=list("1234+"), config=config, seed=0
    ) as model:
        ids = learned.ids()
        x = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
        run = model.fit(x, learned.y, epochs=4, batch_size=64, seed=0)
        ids = held.ids()
        with run.result() as better:
            found = accuracy(better, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}, held.y)
    assert baseline > np.bincount(held.y).max() / len(held.y)
    assert found > baseline + 0.2


@pytest.mark.parametrize(
    ("architecture", "inputs", "config"),
    [
        ("rnn", SERIES, {"kind": "gru"}),
        ("rnn", SERIES, {"kind": "rnn", "bidirectional": True}),
        ("cnn", {"inputs": ("FP32", [-1, 12, -1]), "mask": ("INT64", [-1, -1])}, {"filters": [32, 32]}),
    ],
)
def test_others_learn_series_too(
    tmp_path: Path, vowels: tuple[Series, Series], architecture: str, inputs: dict[str, Any], config: dict[str, Any]
) -> None:
    learned, held = vowels
    turn = (0, 2, 1) if architecture == "cnn" else (0, 1, 2)
    address = f"torch:{tmp_path / 'm'}"
    with aiaas.create(
        address, architecture=architecture, inputs=inputs, labels=SPEAKERS, config=config, seed=0
    ) as model:
        x = {"inputs": learned.x.transpose(turn).copy(), "mask": learned.mask}
        with model.fit(x, learned.y, epochs=20, seed=0).result() as better:
            found = accuracy(better, {"inputs": held.x.transpose(turn).copy(), "mask": held.mask}, held.y)
    assert found > 0.8


def test_a_convolution_over_letters_learns_text_too(tmp_path: Path, syllables: tuple[Words, Words]) -> None:
    learned, held = syllables
    inputs = {"inputs": ("INT64", [-1, -1]), "mask": ("INT64", [-1, -1])}
    config = {"vocabulary": 27, "embedding": 32, "filters": [64]}
    address = f"torch:{tmp_path / 'm'}"
    with aiaas.create(address, architecture="cnn", inputs=inputs, labels=list("1234+"), config=config, seed=0) as model:
        ids = learned.ids()
        run = model.fit({"inputs": ids, "mask": (ids > 0).astype(np.int64)}, learned.y, epochs=4, batch_size=64, seed=0)
        ids = held.ids()
        with run.result() as better:
            found = accuracy(better, {"inputs": ids, "mask": (ids > 0).astype(np.int64)}, held.y)
    assert found > naive_bayes(learned, held) + 0.1


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("mlp", {}),
        ("cnn", {"filters": [16, 32], "padding": 1}),
        ("transformer", {"width": 32, "heads": 4, "layers": 2}),
    ],
)
def test_images_are_learned(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], architecture: str, config: dict[str, Any]
) -> None:
    """The loss falls from epoch to epoch, and most of the images that weren't learned from are known."""
    images, y = digits
    x = images.reshape(-1, 64) if architecture == "mlp" else images
    address, inputs = f"torch:{tmp_path / 'm'}", {"image": ("FP32", [-1, *x.shape[1:]])}
    with aiaas.create(
        address, architecture=architecture, inputs=inputs, labels=list("0123456789"), config=config, seed=0
    ) as model:
        run = model.fit({"image": x[:1400]}, y[:1400], epochs=8, learning_rate=0.003, seed=0)
        with run.result() as better:
            found = accuracy(better, {"image": x[1400:]}, y[1400:])
    assert run.history["loss"][-1] < run.history["loss"][3] < run.history["loss"][0]
    assert found > 0.85


def test_flowers_are_learned(tmp_path: Path, iris: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = iris
    address, inputs = f"torch:{tmp_path / 'm'}", {"lengths": ("FP32", [-1, 4])}
    kinds = ["setosa", "versicolor", "virginica"]
    with aiaas.create(
        address, architecture="mlp", inputs=inputs, labels=kinds, config={"activation": "tanh"}, seed=0
    ) as model:
        run = model.fit(x[::2], y[::2], epochs=60, batch_size=16, learning_rate=0.01, seed=0)
        with run.result() as better:
            assert accuracy(better, {"lengths": x[1::2]}, y[1::2]) > 0.9
