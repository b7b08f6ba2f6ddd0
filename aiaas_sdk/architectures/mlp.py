"""Dense layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.activations import activation as named
from aiaas_sdk.architectures.checks import FLOATS, Inputs, sizes, some_sizes, unfit

__all__ = ["MLP"]


@architecture("mlp")
class MLP(nn.Module):
    """Dense layers: `h_i = f(W_i h_{i-1} + b_i)`, and the last one without f.

    Rumelhart et al. 1986, "Learning Representations by Back-propagating Errors".

    Input: float (rows, features). Output: logits (rows, classes).

    Args:
        features: of one row.
        classes: how many outputs.
        hidden: the width of each layer in between.
        activation: f, one of `activations.ACTIVATIONS`.

    Raises:
        ConfigError: a value can't be.
    """

    def __init__(
        self, features: int, classes: int = 1, hidden: Sequence[int] = (64,), activation: str = "relu"
    ) -> None:
        super().__init__()
        sizes(features=features, classes=classes)
        hidden = some_sizes("hidden", hidden, least=0)
        self.config = {"features": features, "classes": classes, "hidden": hidden, "activation": activation}
        self._example = (1, features)
        layers: list[nn.Module] = []
        for before, after in pairwise((features, *hidden)):
            layers += [nn.Linear(before, after), named(activation)]
        named(activation)  # of no layer, too, it is one that there is
        self.layers = nn.Sequential(*layers, nn.Linear((features, *hidden)[-1], classes))

    @classmethod
    def configure(cls, inputs: Inputs, labels: Sequence[str] | None) -> Mapping[str, Any]:
        """The arguments that a signature decides."""
        match list(inputs.values()):
            case [(datatype, (_, features))] if datatype in FLOATS and features > 0:
                found = {"features": features}
                return found if labels is None else {**found, "classes": len(labels)}
        others = 'for images there is the architecture "cnn", for series and text there are "cnn" and "rnn"'
        unfit("mlp", inputs, '{"NAME": ("FP32", [-1, FEATURES])}', others)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one row, as a batch of one."""
        return self._example

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits
