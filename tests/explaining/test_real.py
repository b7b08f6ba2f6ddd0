"""Real weights explained: a network for handwritten digits, and an encoder of sentences; here and behind a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.peers import ROOT, weights

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]


@aiaas.architecture("explained-digits")
class Network(torch.nn.Module):
    """The layers whose weights `scripts/models.sh digits` fetches."""

    config: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        layers: list[Any] = []
        for before, after in itertools.pairwise((1, 32, 64, 128)):
            layers += [torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        self.conv_layers = torch.nn.Sequential(*layers)
        self.fc_layers = torch.nn.Sequential(torch.nn.Linear(1152, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))

    def forward(self, images: Any) -> Any:
        return self.fc_layers(self.conv_layers(images).flatten(1))


@pytest.fixture(scope="module")
def network() -> Any:
    made = Network()
    made.load_state_dict(torch.load(weights("digits") / "handwriting_model.pth", weights_only=True))
    return made.eval()


@pytest.fixture(scope="module")
def x() -> Any:
    """Test images of MNIST: 7, 2, 1, 0."""
    images = np.load(ROOT / "tests" / "data" / "digits_cnn.npz")["in_image"][:4].astype(np.float32)
    return ((images.reshape(-1, 1, 28, 28) / 255 - 0.1307) / 0.3081).astype(np.float32)


@pytest.fixture(scope="module")
def places(network: Any, x: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        here = aiaas.save(network, folder / "digits", example=x[:1], labels=list("0123456789"))
    with serve_in_thread([here]) as url:
        yield {"here": here, "there": f"{url}/v2/models/digits"}


@pytest.mark.parametrize("place", ["here", "there"])
def test_digits_are_explained_completely(load: Any, places: dict[str, str], network: Any, x: Any, place: str) -> None:
    found = load(places[place], timeout=200).explain(x)
    assert (found.method, found.target) == ("integrated_gradients", (7, 2, 1, 0))
    given = torch.from_numpy(x)
    with torch.no_grad():
        target = torch.tensor(found.target)
        change = (network(given) - network(torch.zeros_like(given)))[torch.arange(4), target].numpy()
    missed = np.abs(found.array.reshape(4, -1).sum(1) - change)
    assert (missed / np.abs(change)).max() < 1e-3
    assert found.completeness_error == pytest.approx(missed.max(), abs=1e-3)
    wanted = attr.IntegratedGradients(network).attribute(given, target=target, n_steps=256, internal_batch_size=128)
    both = np.corrcoef(found.array.ravel(), wanted.detach().numpy().ravel())[0, 1]
    assert both > 0.999


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "grad_cam", "occlusion"])
def test_what_is_said_to_matter_does(places: dict[str, str], network: Any, x: Any, method: str) -> None:
    """Without the 20 inked pixels of the largest attributions the answer loses more than without any other 20."""
    found = aiaas.load(places["here"]).explain(x, method=method).array.reshape(4, -1)

    def left(pixels: Any) -> Any:
        changed = x.reshape(4, -1).copy()
        np.put_along_axis(changed, pixels, x.min(), axis=1)
        with torch.no_grad():
            scores = network(torch.from_numpy(changed.reshape(x.shape))).numpy()
        return scores[range(4), (7, 2, 1, 0)]

    random = np.random.default_rng(0)
    inked = [np.flatnonzero(row > 0) for row in x.reshape(4, -1)]
    others = [left(np.array([random.choice(row, 20, replace=False) for row in inked])) for _ in range(5)]
    scores = found if method in ("occlusion", "integrated_gradients") else np.abs(found)
    ranked = np.argsort(np.where(x.reshape(4, -1) > 0, -scores, np.inf), axis=1)[:, :20]
    assert left(ranked).mean() < np.mean(others)


def test_a_real_picture_is_drawn(places: dict[str, str], x: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = aiaas.load(places["here"]).explain(x, method="grad_cam").plot(tmp_path / "digits.png")
    with image.open(path) as opened:
        assert opened.size[0] == 760
        assert opened.size[1] > 4 * 280
        pixels = np.asarray(opened).astype(int)
    assert (pixels[..., 0] - pixels[..., 2] > 100).sum() > 2_000, "there is red on it"


def test_sentences_are_explained_token_by_token(load: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("tokenizers")
    from aiaas_sdk.backends.torch.importing import import_model

    folder = tmp_path_factory.mktemp("minilm")
    import_model(weights("minilm"), folder / "minilm")
    model = load(f"torch:{folder / 'minilm'}")
    found = model.explain(["A man is playing a guitar.", "Rain."])
    assert found.tokens[0] == ("[CLS]", "a", "man", "is", "playing", "a", "guitar", ".", "[SEP]")
    assert found.completeness_error < 1e-3
    words = dict(zip(found.tokens[0], found.array[0], strict=True))
    assert max(words, key=words.get) in ("guitar", "playing", "man")
    shares = model.explain("A man is playing a guitar.", method="attention_rollout").array
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    with serve_in_thread([f"torch:{folder / 'minilm'}"]) as url:
        there = aiaas.load(f"{url}/v2/models/minilm", timeout=200).explain(["A man is playing a guitar.", "Rain."])
    assert np.abs(there.array - found.array).max() < 1e-6
    assert there.tokens == found.tokens


def test_a_strangers_server_is_asked_for_predictions(load: Any, mlserver: str) -> None:
    """MLServer's model gives 2x: of each row that is the largest number's own doing."""
    x = np.array([[1, 5, 2], [4, 1, 3]], np.float32)
    model = load(f"{mlserver}/v2/models/double", timeout=30)
    for method in ("auto", "occlusion"):
        found = model.explain(x, method=method)
        assert (found.backend, found.target) == ("oip", (1, 0))
        assert found.array.tolist() == [[0, 10, 0], [8, 0, 0]]
    with pytest.raises(aiaas.InputError, match="saliency needs gradients, which oip: doesn't give"):
        model.explain(x, method="saliency")
