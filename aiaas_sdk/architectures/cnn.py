"""Convolutional classifiers: of images, of series such as audio, and of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.activations import activation as named
from aiaas_sdk.architectures.checks import FLOATS, TOKENS, Inputs, choice, share, sizes, some_sizes, unfit
from aiaas_sdk.architectures.convolutions import Series, Windows
from aiaas_sdk.architectures.masks import check_tokens, steps_of
from aiaas_sdk.errors import ConfigError, InputError

__all__ = ["CNN"]

FITTING = (
    'images: {"NAME": ("FP32", [-1, CHANNELS, HEIGHT, WIDTH])}',
    'series: {"NAME": ("FP32", [-1, CHANNELS, -1])}',
    'text, with config={"vocabulary": TOKENS}: {"NAME": ("INT64", [-1, -1])}',
    'series and text of different lengths have a second input, and are then called "inputs": "mask": '
    '("INT64", [-1, -1]), 1 where a row has a step',
    'for a row of numbers there is the architecture "mlp"',
)


@architecture("cnn")
class CNN(nn.Module):
    """Convolutions, then dense layers.

    A convolution: `y[k, i, j] = b[k] + sum over c, u, v of w[k, c, u, v] x[c, i + u, j + v]`, LeCun et al. 1998,
    "Gradient-Based Learning Applied to Document Recognition"; along one axis for series and text.

    ======  =============================================  ==========================================================
    kind    input                                          layers
    ======  =============================================  ==========================================================
    image   inputs, float (rows, channels, height, width)  for each of `filters`: convolution, activation, the largest
                                                           of `pool` x `pool`; dense `hidden`, activation, dense
    series  inputs, float (rows, channels, steps)          as for images, along the steps; then the largest of all
                                                           steps (`convolutions.Series`); dense layers as above
    text    inputs, int64 (rows, tokens)                   embedding; convolutions of several sizes beside each other,
                                                           the largest of all steps (`convolutions.Windows`); dense
    ======  =============================================  ==========================================================

    Series and text take a second input `mask`, (rows, steps): 1 where a row has a step, then 0 to the end. A row
    answers with others as it does alone.

    Output: logits (rows, classes).

    Args:
        channels, height, width: of one image; series have channels alone.
        classes: how many.
        filters: the width of each convolution, of text the one width of all; None: 32 and 64, of text 100.
        hidden: the width of the dense layer before the last.
        kind: "image", "series" or "text".
        kernel: the size of each convolution, of images and series.
        padding: zeros around an image before each convolution.
        pool: of how many the largest is taken.
        activation: one of `activations.ACTIVATIONS`.
        dropout: the share of what goes into the last dense layer that is left out in training.
        vocabulary, embedding: of text: how many tokens there are, and how wide they become.
        kernels: of text: the sizes of the convolutions.

    Raises:
        ConfigError: a value can't be, or nothing is left of an image.
    """

    channels_last = True

    def __init__(
        self,
        channels: int = 1,
        height: int = 28,
        width: int = 28,
        classes: int = 10,
        filters: Sequence[int] | None = None,
        hidden: int = 64,
        kind: str = "image",
        kernel: int = 3,
        padding: int = 0,
        pool: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
        vocabulary: int | None = None,
        embedding: int = 64,
        kernels: Sequence[int] = (3, 4, 5),
    ) -> None:
        super().__init__()
        choice("kind", kind, ("image", "series", "text"))
        sizes(channels=channels, height=height, width=width, classes=classes, hidden=hidden, kernel=kernel, pool=pool)
        sizes(embedding=embedding, **{"padding + 1": padding + 1 if type(padding) is int else padding})
        usual = (100,) if kind == "text" else (32, 64)
        filters = some_sizes("filters", usual if filters is None else filters)
        kernels = some_sizes("kernels", kernels)
        share("dropout", dropout)
        self.config = {
            "channels": channels, "height": height, "width": width, "classes": classes, "filters": filters,
            "hidden": hidden, "kind": kind, "kernel": kernel, "padding": padding, "pool": pool,
            "activation": activation, "dropout": dropout, "vocabulary": vocabulary, "embedding": embedding,
            "kernels": kernels,
        }  # fmt: skip
        self._kind, self._vocabulary = kind, vocabulary
        if kind == "image":
            self._shape: tuple[int, ...] = (channels, height, width)
            self.features, found = _images(self._shape, filters, kernel, padding, pool, activation)
        elif kind == "series":
            self._shape = (channels, 8)
            self.features, found = Series(channels, filters, kernel, pool, activation), filters[-1]
        else:
            self._shape = (8,)
            self.tokens = nn.Embedding(_known(vocabulary), embedding)
            if len(filters) > 1:
                raise ConfigError(f"filters is {filters!r:.80}; of text it is one number", hint="Give filters=[100]")
            self.features, found = Windows(embedding, filters[0], kernels, activation), filters[0] * len(kernels)
        self.head = _head(found, hidden, classes, activation, dropout, dense=kind != "text")

    @classmethod
    def configure(cls, inputs: Inputs, labels: Sequence[str] | None) -> Mapping[str, Any]:
        """The arguments that a signature decides."""
        found = _configured(dict(inputs))
        return found if labels is None else {**found, "classes": len(labels)}

    @property
    def example(self) -> Tensor:
        """One row."""
        return torch.zeros(1, *self._shape, dtype=torch.int64 if self._kind == "text" else torch.float32)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class."""
        if self._kind == "image":
            if mask is not None:
                raise InputError("mask: images have none")
            logits: Tensor = self.head(self.features(inputs))
            return logits
        if self._kind == "text":
            check_tokens(inputs, _known(self._vocabulary), "inputs")
        elif inputs.ndim != 3 or inputs.shape[2] < 1:
            raise InputError(f"inputs: a series of shape {list(inputs.shape)}; it takes (rows, channels, steps)")
        x = self.tokens(inputs).transpose(1, 2) if self._kind == "text" else inputs
        there = None if mask is None else steps_of(mask, x.shape[0], x.shape[2])
        logits = self.head(self.features(x, there))
        return logits


def _known(vocabulary: int | None) -> int:
    if vocabulary is None:
        raise ConfigError("vocabulary isn't given", hint='Give config={"vocabulary": how many tokens there are}')
    sizes(vocabulary=vocabulary)
    return vocabulary


def _images(
    shape: Sequence[int], filters: Sequence[int], kernel: int, padding: int, pool: int, activation: str
) -> tuple[nn.Module, int]:
    """The layers, and how many numbers come out of them."""
    before, height, width = shape
    layers: list[nn.Module] = []
    for after in filters:
        height, width = (((size + 2 * padding - kernel + 1) // pool) for size in (height, width))
        sizes(**{"height after pooling": height, "width after pooling": width})
        layers += [nn.Conv2d(before, after, kernel, padding=padding), named(activation), nn.MaxPool2d(pool)]
        before = after
    return nn.Sequential(*layers, nn.Flatten()), before * height * width


def _head(found: int, hidden: int, classes: int, activation: str, dropout: float, *, dense: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(found, hidden), named(activation)] if dense else []
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(hidden if dense else found, classes))


def _configured(inputs: dict[str, tuple[str, Sequence[int]]]) -> dict[str, Any]:
    mask = inputs.get("mask") if "inputs" in inputs else None
    specs = [inputs["inputs"]] if mask and len(inputs) == 2 and len(mask[1]) == 2 else list(inputs.values())
    match specs:
        case [(datatype, (_, channels, height, width))] if datatype in FLOATS and min(channels, height, width) > 0:
            if not mask:
                return {"channels": channels, "height": height, "width": width}
        case [(datatype, (_, channels, _))] if datatype in FLOATS and channels > 0:
            return {"kind": "series", "channels": channels}
        case [(datatype, (_, _))] if datatype in TOKENS:
            return {"kind": "text", "dropout": 0.5}
    unfit("cnn", inputs, *FITTING)
