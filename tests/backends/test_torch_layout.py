"""Convolutions keep their meaning in another layout of memory, however the module goes on from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN
from aiaas_sdk.backends.torch.layout import channels_last, with_channels_last


class Viewed(nn.Module):
    """Takes a convolution's answer apart by `view`, which that layout can't have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2)
        self.head = nn.Linear(6 * 4 * 4, 5)

    def _ended(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(rows)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self._ended(x.view(x.size(0), -1))


class InPlace(Viewed):
    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu_(self.first(x)))
        return self._ended(torch.flatten(torch.relu_(x), 1))


class ThroughAView(Viewed):
    """Writes into a view, and means the tensor behind it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        x.view(x.size(0), -1).clamp_(min=0)
        return self._ended(torch.flatten(x, 1))


class Strided(Viewed):
    """Looks at memory as it lies."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return self._ended(torch.as_strided(x, (x.size(0), 96), (96, 1)))


@pytest.mark.parametrize("cls", [Viewed, InPlace, ThroughAView, Strided])
def test_a_program_answers_as_its_module_does(cls: type[nn.Module], tmp_path: Path, load: Any) -> None:
    torch.manual_seed(0)
    module = cls().eval()
    address = aiaas.save(module, tmp_path / "m", example=np.zeros((2, 3, 8, 8), np.float32))
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8), np.float32)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(x)).numpy()
    model = load(address)
    assert model.info().platform == "pytorch_exported"
    np.testing.assert_allclose(model.predict(x).array, wanted, rtol=1e-4, atol=1e-6)


def exported(cls: type[nn.Module]) -> torch.export.ExportedProgram:
    x = torch.zeros(2, 3, 8, 8)
    return torch.export.export(cls().eval(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def in_that_layout(weights: dict[str, Any]) -> list[bool]:
    return [w.is_contiguous(memory_format=torch.channels_last) for w in weights.values() if w.ndim == 4]


@pytest.mark.parametrize(("cls", "taken"), [(Viewed, True), (InPlace, True), (ThroughAView, False), (Strided, False)])
def test_a_program_has_the_layout_where_nothing_speaks_against_it(cls: type[nn.Module], taken: bool) -> None:
    assert in_that_layout(with_channels_last(exported(cls)).state_dict) == [taken, taken]


def test_a_class_says_that_it_stands_the_layout() -> None:
    assert all(in_that_layout(channels_last(CNN()).state_dict()))
    assert not any(in_that_layout(channels_last(Viewed()).state_dict()))
