"""SmolLM2 explained: which words of a prompt decide the next token; here, behind our server, and by transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.peers import weights

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]
TEXT, TOKENS = "The capital of France is", ("The", " capital", " of", " France", " is")
PARIS = 7042


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from aiaas_sdk.backends.torch.importing import import_model

    folder = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        import_model(next(weights("smollm2").glob("*.gguf")), folder / "smollm2")
        yield folder / "smollm2"


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Any]:
    with aiaas.load(f"torch:{path}") as model:
        yield model


@pytest.fixture(scope="module")
def theirs(path: Path) -> Any:
    """The log-probabilities of the next token as transformers' Llama has them: of ids, and of vectors."""
    from safetensors.torch import load_file

    from tests.language.conftest import _llama

    (file,) = path.rglob("*.safetensors")
    state = {_llama(name): value for name, value in load_file(file).items()}
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=100_000.0,
        tie_word_embeddings=True,
    )
    llama = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    missing, unexpected = llama.load_state_dict(state, strict=False)
    assert (set(missing) <= {"lm_head.weight"}, unexpected) == (True, [])
    llama.tie_weights()

    def told(ids: Any = None, vectors: Any = None) -> Any:
        return llama(input_ids=ids, inputs_embeds=vectors, logits_to_keep=1).logits[:, -1].log_softmax(-1)

    told.vectors = llama.get_input_embeddings()  # type: ignore[attr-defined]
    return told


@pytest.fixture(scope="module")
def ids(model: Any) -> Any:
    return torch.tensor([[504, 3575, 282, 4649, 314]])


def test_without_france_paris_is_not_next(model: Any, theirs: Any, ids: Any) -> None:
    found = model.explain(TEXT)
    assert (found.method, found.tokens, found.target_tokens) == ("occlusion", (TOKENS,), (" Paris",))
    assert found.target == (PARIS,)
    assert found.array.argmax() == TOKENS.index(" France")
    with torch.no_grad():
        wanted = attr.FeatureAblation(theirs).attribute(ids, baselines=0, target=PARIS)
    assert np.abs(found.array - wanted.numpy()).max() < 2e-3


def test_another_token_has_other_reasons(model: Any) -> None:
    texts = [f"The capital of {country} is" for country in ("France", "Italy")]
    found = model.explain(texts, target=[" Paris", " Rome"])
    assert found.target_tokens == (" Paris", " Rome")
    assert found.array.argmax(1).tolist() == [3, 3], "the country"
    rome = model.explain(texts[0], target=" Rome").array[0]
    assert rome[3] < found.array[0, 3] - 5
    with pytest.raises(aiaas.InputError, match="the target ' Paris is' is 2 tokens: ' Paris', ' is'"):
        model.explain(TEXT, target=" Paris is")


def test_gradients_are_those_of_transformers(model: Any, theirs: Any, ids: Any) -> None:
    found = model.explain(TEXT, target=" Paris", method="saliency")
    vectors = theirs.vectors(ids).detach().requires_grad_()
    wanted = attr.Saliency(lambda given: theirs(vectors=given)).attribute(vectors, target=PARIS).norm(dim=-1).numpy()
    assert np.abs(found.array / wanted - 1).max() < 1e-3


def test_rollout_says_that_all_ends_at_the_first_token(model: Any) -> None:
    shares = model.explain(TEXT, method="attention_rollout").array[0]
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert shares[0] > 0.99


def test_what_does_not_add_up_says_so(model: Any, theirs: Any, ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way from token 0 is too uneven for a few points, which are captum's own."""
    from aiaas_sdk.backends.torch import explanation_path as way

    for name, value in (("PIECES", 1), ("POINTS", 8), ("MOST", 0)):
        monkeypatch.setattr(way, name, value)
    found = model.explain(TEXT, target=" Paris", method="integrated_gradients")
    here, there = (theirs.vectors(one).detach() for one in (ids, torch.zeros_like(ids)))
    with torch.no_grad():
        change = (theirs(ids) - theirs(torch.zeros_like(ids)))[0, PARIS]
    assert found.completeness_error == pytest.approx(abs(float(found.array.sum()) - float(change)), rel=1e-3)
    assert found.completeness_error > 1e-3
    method = attr.IntegratedGradients(lambda given: theirs(vectors=given))
    wanted = method.attribute(here, baselines=there, target=PARIS, n_steps=8).sum(-1).detach().numpy()
    assert np.abs(found.array - wanted).max() < 1e-2 * np.abs(wanted).max()


def test_the_server_says_the_same(model: Any, path: Path, tmp_path: Path) -> None:
    with serve_in_thread([f"torch:{path}"]) as url, aiaas.load(f"{url}/v2/models/smollm2", timeout=200) as there:
        for method in ("occlusion", "saliency"):
            found, here = (one.explain(TEXT, target=" Paris", method=method) for one in (there, model))
            assert np.abs(found.array - here.array).max() < 1e-4 * np.abs(here.array).max()
            assert (found.tokens, found.target_tokens) == (here.tokens, here.target_tokens)
        page = found.plot(tmp_path / "why.html").read_text("utf-8")
    assert all(token in page for token in (*TOKENS, "next token &#x27; Paris&#x27;"))
