"""Which tokens of a text decide the next one: by their gradients, and without each; here and behind our server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
TEXT = "a cat"


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    from safetensors.torch import load_file

    from aiaas_sdk.architectures.transformer import Transformer

    made = Transformer("decoder", width=32, layers=2, heads=4, context=32)
    (weights,) = (folder / "decoder").rglob("*.safetensors")
    made.load_state_dict(load_file(weights))
    return made.eval()


@pytest.fixture(scope="module")
def ids() -> Any:
    return torch.tensor([list(TEXT.encode())])


def next_of(module: Any, ids: Any) -> Any:
    return module(ids)["logits"][:, -1].log_softmax(-1)


def by_vectors(module: Any, vectors: Any) -> Any:
    """The same of tokens' vectors, by the module's parts."""
    places = torch.arange(vectors.shape[1])[None].expand(len(vectors), -1)
    return module._logits(module.stack(vectors, places, causal=True))[:, -1].log_softmax(-1)


@pytest.mark.parametrize("where", ["here", "server"])
def test_a_token_is_asked_for_as_it_is_written(load: Any, at: Any, where: str) -> None:
    model = load(at(where, "decoder"))
    for method in ("saliency", "occlusion", "integrated_gradients"):
        found = model.explain([TEXT, "the dog sat"], target=["t", "A"], method=method)
        assert (found.target, found.target_tokens) == ((ord("t"), ord("A")), ("t", "A"))
    assert model.explain(TEXT, method="attention_rollout").target_tokens is None
    with pytest.raises(aiaas.InputError, match="the target 'At' is 2 tokens: 'A', 't'"):
        model.explain(TEXT, target="At")
    with pytest.raises(aiaas.InputError, match="the target '' is 0 tokens"):
        model.explain(TEXT, target="")
    with pytest.raises(aiaas.InputError, match="target is 'A', and encoder has no labels"):
        load(at(where, "encoder")).explain(TEXT, target="A")


def test_its_name_is_on_the_picture(load: Any, at: Any, tmp_path: Path) -> None:
    found = load(at("here", "decoder")).explain(TEXT, target="<", method="occlusion")
    page = found.plot(tmp_path / "page.html").read_text("utf-8")
    assert "next token &#x27;&lt;&#x27;" in page
    assert f"<small>{found.array[0, 2]:+.2g}</small>" in page


@pytest.mark.parametrize("where", ["here", "server"])
def test_saliency_is_the_length_of_each_token_s_gradient(load: Any, at: Any, module: Any, ids: Any, where: str) -> None:
    found = load(at(where, "decoder")).explain(TEXT, target="t", method="saliency")
    vectors = module.embedding.tokens(ids).detach().requires_grad_()
    wanted = attr.Saliency(lambda given: by_vectors(module, given)).attribute(vectors, target=ord("t"))
    assert np.abs(found.array - wanted.norm(dim=-1).numpy()).max() < 1e-5
    assert (found.array > 0).all()


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "occlusion"])
def test_among_others_as_alone(load: Any, at: Any, name: str, method: str) -> None:
    model = load(at("here", name))
    together, alone = model.explain([TEXT, "the dog sat"], method=method), model.explain(TEXT, method=method)
    assert together.array.shape == (2, 11)
    assert (together.array[0, 5:] == 0).all()
    if method != "smoothgrad":  # whose noise is drawn for all of them
        assert np.abs(together.array[0, :5] - alone.array[0]).max() < 1e-4


@pytest.mark.parametrize("where", ["here", "server"])
def test_occlusion_is_what_is_lost_without_each_token(load: Any, at: Any, module: Any, ids: Any, where: str) -> None:
    found = load(at(where, "decoder")).explain(TEXT, target="t", method="occlusion")
    with torch.no_grad():
        method = attr.FeatureAblation(lambda given: next_of(module, given))
        wanted = method.attribute(ids, baselines=0, target=ord("t")).numpy()
    assert np.abs(found.array - wanted).max() < 1e-5
    given = load(at("here", "decoder")).explain(ids.numpy(), target=ord("t"), method="occlusion")
    assert np.abs(given.array - wanted).max() < 1e-5, "token ids by predictions alone say the same"


def test_a_long_text_is_occluded_by_groups(monkeypatch: pytest.MonkeyPatch, load: Any, at: Any) -> None:
    from aiaas_sdk.backends.torch import explanation_occlusion

    monkeypatch.setattr(explanation_occlusion, "COLUMNS", 2)
    found = load(at("here", "decoder")).explain(TEXT, target="t", method="occlusion").array[0]
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] != found[0]


def test_half_precision_adds_up_too(at: Any) -> None:
    with aiaas.load(at("here", "decoder"), dtype="bfloat16") as model:
        found = model.explain(TEXT, target="t", method="integrated_gradients")
        assert found.completeness_error is not None
        assert found.completeness_error < 1e-3
        assert model.predict(np.zeros((1, 3), np.int64)).array.shape == (1, 3, 257), "it goes on as it was"


# ---------------------------------------------------------------- the way from the baseline
def test_a_way_is_cut_where_it_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiaas_sdk.backends.torch import explanation_path as way

    def jumps(x: Any) -> Any:
        return torch.sigmoid(1000 * (x[:, 0] - 0.371)) + 0.5 * x[:, 1]

    x = torch.tensor([[1.0, 1.0], [0.2, 1.0]], dtype=torch.float64)
    asked = way.Way(jumps, [torch.zeros_like(x)], [x], [], None, 16)
    (found,), error = way.integrated(asked)
    assert error < 1e-3
    assert np.abs(found.numpy() - [[1, 0.5], [0, 0.5]]).max() < 1e-3
    even = attr.IntegratedGradients(jumps).attribute(x, n_steps=64)
    assert np.abs(even.numpy() - found.numpy()).max() > 0.1, "points that are spread evenly miss it"
    monkeypatch.setattr(way, "MOST", 48)
    assert way.integrated(asked)[1] > 1e-3, "what it can't afford it says"
