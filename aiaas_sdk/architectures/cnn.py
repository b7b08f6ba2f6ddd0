"""A convolutional classifier of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.checks import one_input, sizes

__all__ = ["CNN"]


@architecture("cnn")
class CNN(nn.Module):
    """For each of `filters`: convolution 3x3 without padding, ReLU, max-pooling 2; then two dense layers.

    Input: images, float, (rows, channels, height, width). Output: logits (rows, classes).

    Args:
        channels, height, width: of one image.
        classes: how many.
        filters: the width of each convolution.
        hidden: the width of the dense layer before the last.
    """

    def __init__(
        self,
        channels: int = 1,
        height: int = 28,
        width: int = 28,
        classes: int = 10,
        filters: Sequence[int] = (32, 64),
        hidden: int = 64,
    ) -> None:
        super().__init__()
        sizes(channels=channels, height=height, width=width, classes=classes, hidden=hidden)
        sizes(**{f"filters[{index}]": size for index, size in enumerate(filters)})
        self.config = {
            "channels": channels,
            "height": height,
            "width": width,
            "classes": classes,
            "filters": list(filters),
            "hidden": hidden,
        }
        self._example = (1, channels, height, width)
        layers: list[nn.Module] = []
        before = channels
        for after in filters:
            height, width = (height - 2) // 2, (width - 2) // 2
            sizes(**{"height after pooling": height, "width after pooling": width})
            layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(before * height * width, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    @classmethod
    def configure(
        cls, inputs: Mapping[str, tuple[str, Sequence[int]]], labels: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """The arguments that a signature decides."""
        shape = one_input("cnn", inputs, 4)
        found = dict(zip(("channels", "height", "width"), shape[1:], strict=True))
        return found if labels is None else {**found, "classes": len(labels)}

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one row, as a batch of one."""
        return self._example

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
