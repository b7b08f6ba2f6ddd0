"""Texts, token ids and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

torch = pytest.importorskip("torch")
pytest.importorskip("captum")

TEXTS = ["a cat", "the dog sat"]


@pytest.mark.parametrize("where", ["here", "server"])
@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["auto", "attention_rollout"])
def test_each_token_has_its_attribution(load: Any, at: Any, where: str, name: str, method: str) -> None:
    found = load(at(where, name)).explain(TEXTS, method=method)
    reference = aiaas.load(at("here", name)).explain(TEXTS, method=method)
    assert list(found) == ["tokens"]
    assert found.array.shape == (2, 11)
    assert found.tokens == (tuple("a cat"), tuple("the dog sat"))
    assert np.abs(found.array - reference.array).max() < 1e-6
    assert (found.array[0, 5:] == 0).all()
    assert (found.method, found.target) == (reference.method, reference.target)


def test_one_text_may_stand_alone(load: Any, at: Any) -> None:
    assert load(at("here", "encoder")).explain("a cat").array.shape == (1, 5)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["auto", "attention_rollout"])
def test_a_text_is_explained_among_others_as_alone(load: Any, at: Any, name: str, method: str) -> None:
    model = load(at("here", name))
    together, alone = model.explain(TEXTS, method=method), model.explain(TEXTS[0], method=method)
    assert np.abs(together.array[0, :5] - alone.array[0]).max() < 1e-4 * np.abs(alone.array).max()
    assert together.target is None or together.target[:1] == alone.target


@pytest.mark.parametrize("where", ["here", "server"])
def test_attributions_of_tokens_add_up(load: Any, at: Any, where: str) -> None:
    """Of an encoder they add up to what of a text's vector is gone where its tokens are 0."""
    found = load(at(where, "encoder")).explain("a cat")
    assert found.target is None
    assert found.completeness_error < 1e-3
    model = aiaas.load(at("here", "encoder"))
    nothing = {"input_ids": np.zeros((1, 5), np.int64), "attention_mask": np.ones((1, 5), np.int64)}
    own, gone = model.embed("a cat").array[0], model.predict(nothing)["embedding"][0]
    assert found.array.sum() == pytest.approx(1 - own @ gone, abs=1e-3)


def test_a_dimension_of_a_vector_is_a_target(load: Any, at: Any) -> None:
    found = load(at("here", "encoder")).explain("a cat", target=7)
    assert found.target == (7,)
    assert found.completeness_error < 1e-3
    with pytest.raises(aiaas.InputError, match="no target 32"):
        load(at("here", "encoder")).explain("a cat", target=32)


def test_a_decoder_is_explained_by_its_next_token(load: Any, at: Any) -> None:
    model = load(at("here", "decoder"))
    ids = np.frombuffer(b"a cat", np.uint8).astype(np.int64)[None]
    here, there = (told(model.predict(given).array[0, -1]) for given in (ids, np.zeros_like(ids)))
    found = model.explain("a cat", method="integrated_gradients")
    target = found.target[0]
    assert target == int(here.argmax())
    assert found.array.sum() == pytest.approx(here[target] - there[target], abs=2e-3)
    assert model.explain("a cat", target=65).target == (65,)


def told(logits: Any) -> Any:
    """Log-probabilities."""
    found = logits.astype(np.float64)
    return found - np.log(np.exp(found).sum(-1, keepdims=True))


def test_token_ids_are_explained_as_their_text_is(load: Any, at: Any) -> None:
    model = load(at("here", "encoder"))
    ids = np.frombuffer(b"a cat", np.uint8).astype(np.int64)[None]
    found = model.explain({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert np.abs(found["input_ids"] - model.explain("a cat").array).max() < 1e-6
    assert (found["attention_mask"] == 0).all()
    with pytest.raises(aiaas.InputError, match="2 inputs: input_ids, attention_mask"):
        _ = found.array


def test_the_baseline_keeps_what_is_no_text() -> None:
    from aiaas_sdk.backends.torch.explanation_scores import Scorer, Texts
    from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer
    from aiaas_sdk.records.model import ModelInfo, TensorSpec

    output = TensorSpec("scores", "FP32", (-1, 2))
    info = ModelInfo(name="m", inputs=(TensorSpec("input_ids", "INT64", (-1, -1)),), outputs=(output,))
    texts = Texts(ByteTokenizer(), "classify", 8, torch.device("cpu"))
    ids = torch.tensor([[256, 97, 98, 256]])
    scorer = Scorer(lambda ids: [ids[:, :2].float()], info, {"input_ids": ids}, {}, None, texts)
    assert scorer.baseline(["input_ids"])["input_ids"].tolist() == [[256, 0, 0, 256]]


def test_a_model_without_a_tokenizer_says_so(load: Any, at: Any) -> None:
    for where in ("here", "server", "plain"):
        with pytest.raises(aiaas.InputError, match=r"has no tokenizer|can't be explained with texts"):
            load(at(where, "digits")).explain("a text")


# ---------------------------------------------------------------- attention
@pytest.mark.parametrize("where", ["here", "server"])
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_rollout_shares_one_among_the_tokens(load: Any, at: Any, where: str, name: str) -> None:
    found = load(at(where, name)).explain(TEXTS, method="attention_rollout").array
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    assert (found >= 0).all()


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_weights_are_those_that_attention_uses(kind: str) -> None:
    from aiaas_sdk.architectures.transformer import Transformer

    torch.manual_seed(0)
    more = {"kv_heads": 2} if kind == "decoder" else {}
    module = Transformer(kind, vocabulary=50, width=32, layers=1, heads=4, context=16, **more).eval()
    layer, seen = module.stack.blocks[0].attention, []
    layer.register_forward_hook(lambda part, given, named, came: seen.append((given, named, came)), with_kwargs=True)
    ids = torch.randint(0, 50, (2, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        module(ids, mask)
        (x,), named, came = seen[0]
        weights = layer.weights(x, **{name: named[name] for name in ("mask", "causal", "rotate")})
        value = layer._split(layer.value(x))
        value = value.repeat_interleave(4 // value.shape[1], dim=1)
        by_weights = layer.output((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 6), atol=1e-6)
    assert torch.allclose(by_weights, came, atol=1e-5)


def test_rollout_against_numpy_by_hand() -> None:
    from aiaas_sdk.backends.torch.explanation_attention import flow_of

    random = np.random.default_rng(0)
    layers = [random.random((1, 2, 4, 4)) for _ in range(3)]
    layers = [layer / layer.sum(-1, keepdims=True) for layer in layers]
    wanted = np.eye(4)
    for layer in layers:
        wanted = (0.5 * layer[0].mean(0) + 0.5 * np.eye(4)) @ wanted
    found = flow_of([torch.from_numpy(layer) for layer in layers])[0].numpy()
    assert np.abs(found - wanted).max() < 1e-6
    assert np.allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_rollout_of_images_is_by_squares(load: Any, tmp_path: Any, pool: str) -> None:
    config = {"width": 16, "layers": 2, "heads": 2, "patch": 4, "kind": "vision", "image": [1, 8, 12], "pool": pool}
    address = f"torch:{tmp_path / 'vit'}"
    with aiaas.create(address, architecture="transformer", config={**config, "classes": 3}, seed=1):
        pass
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 12)).astype(np.float32)
    model = load(address)
    found = model.explain(x, method="attention_rollout").array
    assert found.shape == x.shape
    squares = found[:, 0, ::4, ::4]
    assert np.array_equal(np.kron(squares, np.ones((1, 4, 4))), found[:, 0])
    total = squares.reshape(2, -1).sum(1)
    assert np.allclose(total, 1, atol=1e-5) if pool == "mean" else (total < 1).all() and (total > 0.1).all()
    assert model.explain(x).completeness_error < 1e-3
