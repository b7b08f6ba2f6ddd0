"""The Transformers: equal with and without a cache, alone and with others, and bounded in what they build."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aiaas_sdk.architectures.attention import Past, attend
from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.errors import ConfigError, InputError

SMALL: dict[str, Any] = {"vocabulary": 50, "width": 32, "layers": 3, "heads": 4, "context": 64}
STYLES: list[dict[str, Any]] = [
    {},
    {"kv_heads": 2},
    {"kv_heads": 1, "head_width": 16, "feedforward": 40, "theta": 500.0},
    {"positions": "learned", "norm": "layer", "activation": "gelu", "gated": False, "bias": True, "tied": False},
    {"positions": "sinusoidal", "norm_first": False, "norm": "layer"},
    {"stretch": {"factor": 4, "low": 1.0, "high": 4.0, "context": 16}},
]


def made(kind: str = "decoder", **config: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(kind, **{**SMALL, **config}).eval().requires_grad_(False)


def ids(rows: int, tokens: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> bool:
    return torch.allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("tokens", [1, 5])
def test_attention_is_the_formula(heads: int, kv_heads: int, tokens: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads, tokens, 8)
    key, value = torch.randn(2, 2, kv_heads, 7, 8)
    mask = torch.rand(2, 1, tokens, 7) > 0.3
    mask[..., 0] = True
    k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (key, value))
    scores = (query @ k.transpose(-1, -2) / math.sqrt(8)).masked_fill(~mask, -math.inf)
    assert close(attend(query, key, value, mask), scores.softmax(-1) @ v, 1e-6)


@pytest.mark.parametrize("style", STYLES)
def test_logits_with_and_without_a_cache_are_equal(style: dict[str, Any]) -> None:
    """A prompt in two pieces, then token by token, against the whole text each time."""
    model, text = made(**style), ids(1, 20)
    whole = model(text)["logits"][0]
    cache = model.cache()
    cache.resize(1, 32)
    first = model.advance(text[:, :7], Past.beginning(cache, 0, 0, 7))
    second = model.advance(text[:, 7:12], Past.beginning(cache, 0, 7, 5))
    assert close(first[0], whole[6])
    assert close(second[0], whole[11])
    for place in range(12, 20):
        assert close(model.advance(text[:, place : place + 1], Past.step(cache, [place]))[0], whole[place])


@pytest.mark.parametrize("style", STYLES)
def test_rows_of_different_lengths_share_a_cache(style: dict[str, Any]) -> None:
    model = made(**style)
    texts = [ids(1, length, seed) for seed, length in enumerate((3, 11, 7))]
    cache = model.cache()
    cache.resize(2, 8)
    cache.resize(4, 16)
    for row, text in enumerate(texts):
        model.advance(text[:, :-2], Past.beginning(cache, row, 0, text.shape[1] - 2))
    cache.resize(3, 32)
    for back in (2, 1):
        new = torch.cat([text[:, -back : text.shape[1] - back + 1] for text in texts])
        logits = model.advance(new, Past.step(cache, [text.shape[1] - back for text in texts]))
        for row, text in enumerate(texts):
            assert close(logits[row], model(text)["logits"][0, -back])


def test_a_row_that_was_copied_goes_on_alike() -> None:
    model, text = made(kv_heads=2), ids(1, 6)
    cache = model.cache()
    cache.resize(3, 16)
    model.advance(text[:, :5], Past.beginning(cache, 2, 0, 5))
    cache.copy(2, 0, 5)
    assert close(model.advance(text[:, 5:], Past.step(cache, [5]))[0], model(text)["logits"][0, -1])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("left", [True, False])
def test_padded_rows_answer_as_they_do_alone(style: dict[str, Any], left: bool) -> None:
    model = made(**style)
    texts = [ids(1, 4, 1), ids(1, 9, 2)]
    batch, mask = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, dtype=torch.int64)
    for row, text in enumerate(texts):
        size = text.shape[1]
        places = slice(9 - size, 9) if left else slice(0, size)
        batch[row, places], mask[row, places] = text[0], 1
    logits = model(batch, mask)["logits"]
    for row, text in enumerate(texts):
        assert close(logits[row][mask[row] == 1], model(text)["logits"][0])


def test_an_encoder_does_not_see_padding() -> None:
    model = made("encoder")
    text = ids(1, 5)
    padded = torch.cat((text, ids(1, 4)), dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 4])
    alone, among = model(text, torch.ones_like(text)), model(padded, mask)
    assert close(among["hidden"][:, :5], alone["hidden"])
    assert close(among["embedding"], alone["embedding"])
    assert close(alone["embedding"].norm(dim=-1), torch.ones(1))
    mean = alone["hidden"].mean(1)
    assert close(alone["embedding"], mean / mean.norm())


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_an_encoder_decoder_looks_back_only_and_at_all_of_the_source(positions: str) -> None:
    model = made("encoder_decoder", positions=positions)
    source, target = ids(2, 6, 1), ids(2, 8, 2)
    logits = model(source, decoder_input_ids=target)["logits"]
    assert logits.shape == (2, 8, 50)
    changed = target.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 50
    later = model(source, decoder_input_ids=changed)["logits"]
    assert close(later[:, :5], logits[:, :5])
    assert not close(later[:, 5:], logits[:, 5:])
    other = source.clone()
    other[:, 5] = (other[:, 5] + 1) % 50
    assert not close(model(other, decoder_input_ids=target)["logits"][:, 0], logits[:, 0])


def test_half_precision_stays_near() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = made(kv_heads=2).to(device)
    text = ids(2, 12).to(device)
    exact = model(text)["logits"].softmax(-1)
    assert close(model.bfloat16()(text)["logits"].float().softmax(-1), exact, 0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_answers_as_here() -> None:
    model, text = made(kv_heads=2), ids(2, 12)
    here = model(text)["logits"]
    assert close(model.cuda()(text.cuda())["logits"].cpu(), here, 1e-3)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"kind": "other"}, "kind is 'other'"),
        ({"width": 33}, "heads can't share"),
        ({"kv_heads": 3}, "no multiple of kv_heads"),
        ({"layers": 1 << 20}, "at most 1024"),
        ({"vocabulary": 0}, "vocabulary is 0"),
        ({"vocabulary": 1 << 40}, "vocabulary is"),
        ({"context": True}, "context is True"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"activation": []}, "activation is"),
        ({"tied": 1}, "tied is 1"),
        ({"theta": "x"}, "theta is 'x'"),
        ({"norm_eps": 0.0}, "norm_eps is 0"),
        ({"stretch": {"factor": 2}}, "stretch is"),
        ({"stretch": {"factor": 0, "low": 1, "high": 4, "context": 8}}, "factor is 0"),
        ({"stretch": {"factor": 2, "low": 4, "high": 4, "context": 8}}, "below its high"),
        ({"head_width": 7}, "head_width is 7"),
        ({"kind": "encoder_decoder", "positions": "rotary"}, "positions is 'rotary'"),
        ({"token_types": 1 << 30, "kind": "encoder"}, "token_types"),
    ],
)
def test_arguments_that_cannot_be(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told), torch.device("meta"):
        Transformer(**{**SMALL, **config})


@pytest.mark.parametrize("bad", [[[-1, 3]], [[50]], [[]], [[1] * 65], [1, 2]])
def test_ids_that_cannot_be(bad: list[Any]) -> None:
    with pytest.raises(InputError, match="token id"):
        made()(torch.tensor(bad, dtype=torch.int64))


def test_only_a_decoder_has_a_cache() -> None:
    with pytest.raises(ConfigError, match="has no cache"):
        made("encoder").cache()
