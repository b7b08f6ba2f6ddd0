"""Convolutional networks: images, series and text; a row answers with others as it does alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aiaas_sdk.architectures.activations import ACTIVATIONS, activation
from aiaas_sdk.architectures.cnn import CNN
from aiaas_sdk.architectures.mlp import MLP
from aiaas_sdk.errors import ConfigError, InputError


def made(**config: Any) -> CNN:
    torch.manual_seed(0)
    return CNN(**config).eval().requires_grad_(False)


def test_the_first_image_network_has_the_layers_that_it_had() -> None:
    """Bundles that were saved name their weights so."""
    model = made()
    assert sum(p.numel() for p in model.parameters()) == 121_930
    assert list(model.state_dict()) == [
        f"{part}.{kind}" for part in ("features.0", "features.3", "head.0", "head.2") for kind in ("weight", "bias")
    ]
    x = torch.randn(2, 1, 28, 28)
    wanted = x
    for place in (0, 3):
        wanted = functional.max_pool2d(functional.conv2d(wanted, *layer(model, f"features.{place}")).relu(), 2)
    wanted = functional.linear(wanted.flatten(1), *layer(model, "head.0")).relu()
    assert torch.allclose(model(x), functional.linear(wanted, *layer(model, "head.2")), atol=1e-6)


def layer(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    state = model.state_dict()
    return state[f"{name}.weight"], state[f"{name}.bias"]


def test_an_image_convolution_is_the_formula() -> None:
    """By numpy, window for window, with padding and another pool."""
    model = made(channels=2, height=7, width=6, classes=3, filters=[4], hidden=5, padding=1, pool=3, activation="tanh")
    x = torch.randn(1, 2, 7, 6)
    weight, bias = (t.numpy() for t in layer(model, "features.0"))
    padded = np.pad(x[0].numpy(), ((0, 0), (1, 1), (1, 1)))
    y = np.empty((4, 7, 6), np.float32)
    for i in range(7):
        for j in range(6):
            y[:, i, j] = np.tanh((weight * padded[None, :, i : i + 3, j : j + 3]).sum((1, 2, 3)) + bias)
    pooled = np.array(
        [[[y[k, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].max() for j in (0, 1)] for i in (0, 1)] for k in range(4)]
    )
    assert np.allclose(model.features(x)[0].numpy(), pooled.ravel(), atol=1e-6)


KINDS: list[dict[str, Any]] = [
    {"kind": "series", "channels": 3, "filters": [8, 6], "kernel": 5},
    {"kind": "series", "channels": 3, "filters": [8, 6, 4], "kernel": 4, "pool": 3, "activation": "tanh"},
    {"kind": "text", "vocabulary": 20, "filters": [9], "activation": "gelu"},
    {"kind": "text", "vocabulary": 20, "kernels": [2, 7]},
]


def rows(config: dict[str, Any], lengths: list[int]) -> list[Tensor]:
    torch.manual_seed(1)
    if config["kind"] == "text":
        return [torch.randint(0, 20, (1, n)) for n in lengths]
    return [torch.randn(1, 3, n) for n in lengths]


@pytest.mark.parametrize("config", KINDS)
def test_padded_rows_answer_as_they_do_alone(config: dict[str, Any]) -> None:
    model, alone = made(classes=4, **config), rows(config, [1, 2, 11, 16])
    batch = torch.cat([functional.pad(row, (0, 16 - row.shape[-1]), value=7) for row in alone])
    mask = torch.arange(16)[None] < torch.tensor([[1], [2], [11], [16]])
    for given in (mask, mask.long()):
        logits = model(batch, given)
        for place, row in enumerate(alone):
            assert torch.allclose(logits[place], model(row)[0], atol=1e-6)
    assert not torch.allclose(model(batch)[0], logits[0], atol=1e-3)


def test_series_and_text_take_the_largest_of_all_steps() -> None:
    """By hand: convolution with zeros beyond the ends, the largest of each two steps, and of all."""
    model = made(kind="series", channels=2, filters=[5], kernel=3, classes=3)
    x = torch.randn(1, 2, 9)
    steps = functional.conv1d(x, *layer(model, "features.layers.0"), padding=1).relu()
    assert torch.allclose(model.features(x), steps.amax(2), atol=1e-6)
    text = made(kind="text", vocabulary=20, embedding=6, filters=[5], kernels=[3, 4], classes=3)
    ids = torch.randint(0, 20, (1, 9))
    vectors = functional.embedding(ids, text.tokens.weight).transpose(1, 2)
    wanted = [
        functional.conv1d(functional.pad(vectors, pad), *layer(text, f"features.layers.{place}")).relu().amax(2)
        for place, pad in enumerate([(1, 1), (1, 2)])
    ]
    assert torch.allclose(text.features(vectors), torch.cat(wanted, 1), atol=1e-6)


@pytest.mark.parametrize("config", [{}, *KINDS])
def test_gradients_reach_every_weight(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CNN(classes=4, **config)
    example = torch.randn(3, 1, 28, 28) if not config else torch.cat(rows(config, [12, 12, 12]))
    model(example).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_dropout_is_of_training_alone() -> None:
    model = CNN(kind="text", vocabulary=20, dropout=0.5)
    ids = torch.randint(0, 20, (1, 9))
    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"kind": "video"}, "kind is 'video'"),
        ({"filters": []}, "filters is"),
        ({"filters": "12"}, "filters is '12'"),
        ({"filters": [8] * 2000}, "1 to 1024 whole numbers"),
        ({"filters": [1 << 40]}, r"filters\[0\]"),
        ({"filters": [8] * 5}, "after pooling is"),
        ({"kernel": 40}, "after pooling"),
        ({"hidden": 0}, "hidden is 0"),
        ({"padding": -1}, "padding"),
        ({"padding": "1"}, "padding"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"activation": "swish"}, "activation is 'swish'"),
        ({"activation": ["relu"]}, "activation is"),
        ({"kind": "text"}, "vocabulary isn't given"),
        ({"kind": "text", "vocabulary": 1 << 40}, "vocabulary is"),
        ({"kind": "text", "vocabulary": 9, "filters": [8, 8]}, "of text it is one number"),
        ({"kind": "text", "vocabulary": 9, "kernels": [0]}, r"kernels\[0\] is 0"),
    ],
)
def test_arguments_that_cannot_be(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told), torch.device("meta"):
        CNN(**config)


def test_inputs_that_cannot_be() -> None:
    text, series = made(kind="text", vocabulary=9), made(kind="series", channels=2)
    with pytest.raises(InputError, match="a token id isn't from 0 to 8"):
        text(torch.tensor([[1, 9]]))
    with pytest.raises(InputError, match="token ids of shape"):
        text(torch.tensor([1, 2]))
    with pytest.raises(InputError, match=r"series of shape \[1, 2, 0\]"):
        series(torch.zeros(1, 2, 0))
    for mask in ([[0, 0]], [[0, 1]], [[1, 1, 1]]):
        with pytest.raises(InputError, match="mask"):
            text(torch.tensor([[1, 2]]), torch.tensor(mask))
    with pytest.raises(InputError, match="images have none"):
        made()(torch.zeros(1, 1, 28, 28), torch.ones(1, 28))


def test_activations_are_their_formulas() -> None:
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    e = x.exp()
    wanted = {
        "relu": torch.where(x > 0, x, 0),
        "sigmoid": 1 / (1 + 1 / e),
        "tanh": (e - 1 / e) / (e + 1 / e),
        "gelu": x * (1 + torch.erf(x / 2**0.5)) / 2,
        "silu": x / (1 + 1 / e),
    }
    assert {*wanted} == {*ACTIVATIONS}
    for name, y in wanted.items():
        assert torch.allclose(activation(name)(x), y, atol=1e-12)


def test_dense_layers_take_any_activation_and_depth() -> None:
    torch.manual_seed(0)
    model, x = MLP(4, 3, [5, 6], "tanh"), torch.randn(2, 4)
    assert list(MLP(4, 3).state_dict()) == [f"layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")]
    wanted = x
    for place in (0, 2):
        wanted = functional.linear(wanted, *layer(model, f"layers.{place}")).tanh()
    assert torch.allclose(model(x), functional.linear(wanted, *layer(model, "layers.4")), atol=1e-6)
    assert MLP(4, 3, [])(x).shape == (2, 3)
    for config, told in (({"hidden": "64"}, "hidden is"), ({"activation": "x", "hidden": []}, "activation is 'x'")):
        with pytest.raises(ConfigError, match=told):
            MLP(4, **config)  # type: ignore[arg-type]
