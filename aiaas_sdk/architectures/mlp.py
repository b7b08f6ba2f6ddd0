"""Dense layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.checks import one_input, sizes

__all__ = ["MLP"]


@architecture("mlp")
class MLP(nn.Module):
    """Dense layers with ReLU between them.

    Input: float (rows, features). Output: logits (rows, classes).

    Args:
        features: of one row.
        classes: how many outputs.
        hidden: the width of each layer in between.
    """

    def __init__(self, features: int, classes: int = 1, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        sizes(features=features, classes=classes)
        sizes(**{f"hidden[{index}]": size for index, size in enumerate(hidden)})
        self.config = {"features": features, "classes": classes, "hidden": list(hidden)}
        self._example = (1, features)
        layers: list[nn.Module] = []
        for before, after in pairwise((features, *hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear((features, *hidden)[-1], classes))

    @classmethod
    def configure(
        cls, inputs: Mapping[str, tuple[str, Sequence[int]]], labels: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """The arguments that a signature decides."""
        features = one_input("mlp", inputs, 2)[1]
        return {"features": features} if labels is None else {"features": features, "classes": len(labels)}

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one row, as a batch of one."""
        return self._example

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits
