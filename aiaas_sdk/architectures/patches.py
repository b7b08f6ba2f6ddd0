"""Images as rows of vectors, for a Transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aiaas_sdk.architectures.shape import Shape
from aiaas_sdk.errors import InputError

__all__ = ["Patches"]


class Patches(nn.Module):
    """An image cut into squares, each a vector, with where it stands: `z = [class; x_1 E; x_2 E; ...] + P`.

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", equation 1. E is a convolution whose windows don't
    overlap, which is the same; P is learned. Where the classifier takes the mean there is no class vector.

    From (rows, channels, height, width) to (rows, squares, or one more, width of a vector).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        assert shape.image is not None
        assert shape.patch is not None
        channels, height, width = self._image = tuple(shape.image)
        own = shape.pool == "cls"
        count = (height // shape.patch) * (width // shape.patch) + own
        self.squares = nn.Conv2d(channels, shape.width, shape.patch, stride=shape.patch)
        self.cls = nn.Parameter(torch.zeros(shape.width)) if own else None
        # 0.02 is what BERT and ViT draw with
        self.positions = nn.Parameter(torch.randn(count, shape.width) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != self._image:
            raise InputError(
                f"images of shape {list(images.shape)}; it takes (rows, {', '.join(map(str, self._image))})"
            )
        x = self.squares(images).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat((self.cls.expand(x.shape[0], 1, -1), x), dim=1)
        placed: Tensor = x + self.positions
        return placed
