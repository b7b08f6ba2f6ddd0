"""Transformers that classify: text by its tokens, images by their patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.errors import ConfigError, InputError

SMALL: dict[str, Any] = {"width": 32, "layers": 2, "heads": 4}
VISION: dict[str, Any] = {**SMALL, "kind": "vision", "image": [3, 8, 12], "patch": 4, "classes": 5}


def made(**config: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**config).eval().requires_grad_(False)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", [None, "mean", "cls"])
def test_text_is_pooled_without_its_padding(pool: str | None) -> None:
    model = made(**SMALL, kind="encoder", vocabulary=50, context=16, classes=5, pool=pool)
    rows = [torch.randint(0, 50, (1, n)) for n in (3, 9)]
    ids = torch.cat([functional.pad(row, (0, 9 - row.shape[1]), value=7) for row in rows])
    mask = (torch.arange(9)[None] < torch.tensor([[3], [9]])).long()
    logits = model(input_ids=ids, attention_mask=mask)
    assert logits.shape == (2, 5)
    for place, row in enumerate(rows):
        assert close(model(row)[0], logits[place])
    plain = made(**SMALL, kind="encoder", vocabulary=50, context=16)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("classifier")})
    hidden = plain(rows[1])["hidden"]
    pooled = hidden[:, 0] if pool == "cls" else hidden.mean(1)
    assert close(functional.linear(pooled, model.classifier.weight, model.classifier.bias), logits[1:])


def test_patches_are_squares_of_the_image_times_a_matrix() -> None:
    """Each square, flattened, through one matrix; a vector of its own before them; positions added."""
    model, x = made(**VISION), torch.randn(2, 3, 8, 12)
    parts = model.patches
    matrix, bias = parts.squares.weight.flatten(1), parts.squares.bias
    found = []
    for top in (0, 4):
        for left in (0, 4, 8):
            found.append(x[:, :, top : top + 4, left : left + 4].flatten(1) @ matrix.T + bias)
    wanted = torch.stack([parts.cls.expand(2, -1), *found], dim=1) + parts.positions
    assert close(parts(x), wanted)
    places = torch.arange(7)[None].expand(2, -1)
    assert close(model(x), model.classifier(model.stack(wanted, places)[:, 0]))
    assert close(model(images=x), model(x))
    assert close(model(x[:1]), model(x)[:1])


def test_the_mean_of_an_image_has_no_vector_of_its_own() -> None:
    model = made(**VISION, pool="mean")
    assert model.patches.cls is None
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 5)


@pytest.mark.parametrize(("size", "patch"), [([28, 28], 7), ([224, 224], 16), ([8, 8], 2), ([7, 5], 1), ([32, 48], 8)])
def test_a_patch_is_chosen_that_fits(size: list[int], patch: int) -> None:
    with torch.device("meta"):
        assert Transformer(**SMALL, kind="vision", image=[1, *size], classes=2).shape.patch == patch


@pytest.mark.parametrize("config", [VISION, {**SMALL, "kind": "encoder", "vocabulary": 50, "classes": 5}])
def test_gradients_reach_every_weight(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Transformer(**{**config, **({"token_types": 0} if config["kind"] == "encoder" else {})})
    x = torch.randn(2, 3, 8, 12) if config["kind"] == "vision" else torch.arange(20).view(2, 10)
    model(x)[:, 0].sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a key's bias shifts all scores of a row alike, and softmax takes that away
    assert not [name for name in dead if not name.endswith("key.bias")]


def test_a_classifier_is_no_language_model() -> None:
    assert made(**VISION).task is None
    assert made(**SMALL, kind="encoder", classes=2).task is None
    assert made(**SMALL, kind="encoder").task == "embed"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"classes": 3}, "classes is 3, and the kind 'decoder' has none"),
        ({"kind": "encoder", "pool": "mean"}, "pool is 'mean' without classes"),
        ({"kind": "encoder", "classes": 2, "pool": "max"}, "pool is 'max'"),
        ({"kind": "encoder", "classes": 1 << 40}, "classes is"),
        ({"kind": "encoder", "patch": 2}, "patch is 2"),
        ({"kind": "vision", "image": [1, 8, 8]}, "classes isn't given"),
        ({"kind": "vision", "classes": 2}, "image is None"),
        ({"kind": "vision", "classes": 2, "image": [8, 8]}, "image is"),
        ({"kind": "vision", "classes": 2, "image": [1, 8, 8, 8]}, "channels, height, width"),
        ({"kind": "vision", "classes": 2, "image": [1, 8, 10], "patch": 4}, "8 x 10 isn't made of such squares"),
        ({"kind": "vision", "classes": 2, "image": [1, 8, 8], "patch": 0}, "patch is 0"),
        ({"kind": "vision", "classes": 2, "image": [1, 8, 8], "positions": "rotary"}, "positions is 'rotary'"),
        ({"kind": "vision", "classes": 2, "image": [1, 1 << 40, 8]}, r"image\[1\]"),
    ],
)
def test_arguments_that_cannot_be(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told), torch.device("meta"):
        Transformer(**{**SMALL, **config})


def test_images_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"takes \(rows, 3, 8, 12\)"):
        made(**VISION)(torch.zeros(1, 3, 12, 8))
    with pytest.raises(InputError, match="input_ids, or images"):
        made(**VISION)()
