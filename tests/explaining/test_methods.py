"""Each method against captum called by hand, closed forms, and what is known beforehand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch import explanation_path as way
from aiaas_sdk.explaining import occlusion

from .conftest import images, rows

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")


@pytest.fixture(scope="session")
def module(folder: Any) -> Any:
    """The digits network as plain PyTorch."""
    torch.manual_seed(1)
    from aiaas_sdk.architectures.cnn import CNN

    return CNN(height=12, width=12, classes=10, filters=(4, 8), hidden=16).eval()


@pytest.fixture
def x() -> Any:
    return images(3)


def by_hand(module: Any, x: Any) -> tuple[Any, Any]:
    given = torch.from_numpy(x).requires_grad_()
    return given, module(given).argmax(1)


# ---------------------------------------------------------------- captum by hand
def test_integrated_gradients(load: Any, at: Any, module: Any, x: Any) -> None:
    given, target = by_hand(module, x)
    # more steps than a row needs
    wanted = attr.IntegratedGradients(module).attribute(given, target=target, n_steps=1024, internal_batch_size=512)
    found = load(at("here", "digits")).explain(x, method="integrated_gradients")
    assert np.abs(found.array - wanted.detach().numpy()).max() < 0.02 * np.abs(found.array).max()
    difference = (module(given) - module(torch.zeros_like(given)))[torch.arange(3), target].detach().numpy()
    missed = np.abs(found.array.reshape(3, -1).sum(1) - difference)
    assert found.completeness_error == pytest.approx(missed.max(), abs=1e-5)
    assert found.completeness_error < 1e-3


def test_few_steps_are_captums_own(load: Any, at: Any, module: Any, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIECES", 1), ("POINTS", 16), ("MOST", 0)):
        monkeypatch.setattr(way, name, value)
    given, target = by_hand(module, x)
    wanted = attr.IntegratedGradients(module).attribute(given, target=target, n_steps=16)
    found = load(at("here", "digits")).explain(x, method="integrated_gradients")
    assert np.abs(found.array - wanted.detach().numpy()).max() < 1e-6


def test_saliency(load: Any, at: Any, module: Any, x: Any) -> None:
    given, target = by_hand(module, x)
    wanted = attr.Saliency(module).attribute(given, target=target).numpy()
    assert np.abs(load(at("here", "digits")).explain(x, method="saliency").array - wanted).max() < 1e-6


def test_grad_cam_takes_what_the_last_convolution_lets_through(load: Any, at: Any, module: Any, x: Any) -> None:
    given, target = by_hand(module, x)
    layers = list(module.features)
    place = max(number for number, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d))
    last = layers[place + 1]
    assert isinstance(last, torch.nn.ReLU)
    maps = attr.LayerGradCam(module, last).attribute(given, target=target, relu_attributions=True)
    wanted = attr.LayerAttribution.interpolate(maps, (12, 12), "bilinear").detach().numpy()
    assert np.abs(load(at("here", "digits")).explain(x, method="grad_cam").array - wanted).max() < 1e-6


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look, self.level, self.on = torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.on(self.level(self.look(x)) + x)


class Functional(Residual):
    def forward(self, x: Any) -> Any:
        return self.level(torch.relu(self.look(x)))


@pytest.mark.parametrize(
    ("module", "last"),
    [
        (Residual(), "on"),
        (Functional(), "look"),  # a norm behind an activation shifts the map
        (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(1)), "1"),
        (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.ReLU()), "2"),
        (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)), "1"),
    ],
)
def test_the_last_map_is_what_the_activation_lets_through(module: Any, last: str) -> None:
    from aiaas_sdk.backends.torch.explanation_layers import last_map

    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    assert last_map(module.eval(), lambda: module(x).sum()) is getattr(module, last)


def test_smoothgrad_is_the_mean_gradient_near_by(load: Any, at: Any, module: Any, x: Any) -> None:
    given, target = by_hand(module, x)
    span = (given.flatten(1).amax(1) - given.flatten(1).amin(1)).detach()[:, None, None, None]
    random = torch.Generator().manual_seed(99)  # other noise than its own
    found = 0
    for _ in range(100):
        noisy = (given.detach() + 0.15 * span * torch.randn(given.shape, generator=random)).requires_grad_()
        found = found + attr.Saliency(module).attribute(noisy, target=target, abs=False) / 100
    ours_ = load(at("here", "digits")).explain(x, method="smoothgrad").array
    assert np.corrcoef(ours_.ravel(), found.numpy().ravel())[0, 1] > 0.8


def test_occlusion(load: Any, at: Any, module: Any, x: Any) -> None:
    given, target = by_hand(module, x)
    wide = -(-12 // occlusion.ACROSS)
    wanted = attr.Occlusion(module).attribute(
        given, target=target, sliding_window_shapes=(1, wide, wide), strides=(1, wide // 2, wide // 2)
    )
    found = load(at("here", "digits")).explain(x, method="occlusion").array
    assert np.abs(found - wanted.detach().numpy()).max() < 1e-5


@pytest.mark.parametrize(("size", "step"), [(28, 2), (12, 1), (5, 1), (30, 2), (1, 1), (224, 16)])
def test_windows_cover_each_element_and_are_bounded(size: int, step: int) -> None:
    windows = occlusion._windows(size)
    seen = np.zeros(size)
    for window in windows:
        seen[window] += 1
    assert seen.min() >= 1
    assert windows[-1].stop == size
    assert len(windows) <= 2 * occlusion.ACROSS + 2
    assert len(windows) == 1 or windows[1].start - windows[0].start == step


# ---------------------------------------------------------------- SHAP values
def shapley_by_orders(value: Any, count: int) -> Any:
    """The definition: the mean over all orders of what each feature adds to those before it."""
    found = np.zeros(count)
    for order in itertools.permutations(range(count)):
        there = np.zeros(count, bool)
        before = value(there)
        for feature in order:
            there[feature] = True
            after = value(there)
            found[feature] += after - before
            before = after
    return found / math.factorial(count)


@pytest.mark.parametrize("where", ["here", "server", "plain"])
def test_shap_is_exact_for_few_features(load: Any, at: Any, where: str) -> None:
    model, x = load(at(where, "table")), rows(3)
    found = model.explain(x)
    assert found.method == "shap"
    local = aiaas.load(at("here", "table"))
    for row, target in enumerate(found.target):
        wanted = shapley_by_orders(lambda there: local.predict(np.where(there, x[row], 0)[None]).array[0, target], 4)  # noqa: B023
        assert np.abs(found.array[row] - wanted).max() < 1e-5
    assert found.completeness_error < 1e-5


def test_shap_is_captums(at: Any) -> None:
    torch.manual_seed(1)
    model, x = aiaas.load(at("here", "table")), rows(2)

    def forward(given: Any) -> Any:
        return torch.from_numpy(model.predict(given.numpy()).array)

    found = model.explain(x, target=1)
    wanted = attr.ShapleyValues(forward).attribute(torch.from_numpy(x), target=1)
    assert np.abs(found.array - wanted.numpy()).max() < 1e-5


@pytest.mark.parametrize("where", ["here", "server", "plain"])
def test_of_a_linear_model_shap_is_weight_times_feature(load: Any, at: Any, where: str) -> None:
    x = rows(3, 20)
    found = load(at(where, "linear")).explain(x)
    assert (found.method, found.target) == ("shap", None)
    assert np.abs(found.array - x * (np.arange(20) - 10)).max() < 1e-4
    assert found.completeness_error < 1e-4
    for method in ("occlusion", "integrated_gradients") if where != "plain" else ("occlusion",):
        assert np.abs(load(at(where, "linear")).explain(x, method=method).array - found.array).max() < 1e-3


def test_drawn_orders_come_near_the_exact_values(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiaas_sdk.explaining import shapley

    model, x = aiaas.load(at("here", "table")), rows(4)
    exact = model.explain(x).array
    monkeypatch.setattr(shapley, "EXACT", 0)
    drawn = model.explain(x)
    assert np.abs(drawn.array - exact).max() < 0.02 * np.abs(exact).max()
    assert drawn.completeness_error < 1e-5


# ---------------------------------------------------------------- what is known beforehand
@pytest.mark.parametrize("where", ["here", "server"])
@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "smoothgrad", "grad_cam", "occlusion"])
def test_the_pixel_that_decides_has_the_attribution(load: Any, at: Any, where: str, method: str) -> None:
    x = np.abs(images(2, 14)) + 0.1
    found = load(at(where, "pixel")).explain(x, target=1, method=method).array[:, 0]
    if method == "occlusion":  # its windows are as wide as two pixels
        assert found[:, 9, 5].min() >= found.reshape(2, -1).max(1).min() - 1e-6
        found[:, 8:11, 4:7] = 0
    elif method == "grad_cam":  # a map of what the convolution saw, weighed alike everywhere
        assert (found >= 0).all()
        return
    else:
        assert (found.reshape(2, -1).argmax(1) == 9 * 14 + 5).all()
        found[:, 9, 5] = 0
    assert np.abs(found).max() < 1e-6


def test_explaining_disturbs_no_other_call(at: Any) -> None:
    """Layers are watched, and their outputs replaced, in a twin of the module."""
    from concurrent.futures import ThreadPoolExecutor

    model = aiaas.load(at("here", "encoder"), concurrency=4)
    texts = ["another", "a longer text than that"]
    wanted, vectors = model.explain("a cat").array, model.embed(texts).array
    with ThreadPoolExecutor(3) as pool:
        explained = [pool.submit(model.explain, "a cat") for _ in range(4)]
        while not all(found.done() for found in explained):
            assert np.abs(model.embed(texts).array - vectors).max() < 1e-6
        assert all(np.abs(found.result().array - wanted).max() < 1e-6 for found in explained)


def test_a_program_has_gradients_and_no_layers(at: Any, tmp_path: Any, x: Any) -> None:
    class Unregistered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look, self.head = torch.nn.Conv2d(1, 2, 3), torch.nn.Linear(200, 3)

        def forward(self, images: Any) -> Any:
            return self.head(torch.relu(self.look(images)).flatten(1))

    module = Unregistered().eval()
    address = aiaas.save(module, tmp_path / "program", example=x[:1])
    model = aiaas.load(address)
    given, target = by_hand(module, x)
    wanted = attr.Saliency(module).attribute(given, target=target).numpy()
    assert np.abs(model.explain(x, method="saliency").array - wanted).max() < 1e-6
    assert model.explain(x).completeness_error < 1e-3
    with pytest.raises(aiaas.InputError, match="grad_cam needs the module; this model was saved as a program"):
        model.explain(x, method="grad_cam")


@pytest.mark.parametrize("tokens", [False, True])
def test_a_recurrent_network(load: Any, tmp_path: Any, tokens: bool) -> None:
    address = f"torch:{tmp_path / 'lstm'}"
    config = {"kind": "lstm", "hidden": 8, **({"vocabulary": 20} if tokens else {})}
    inputs = {"steps": ("INT64", [-1, -1]) if tokens else ("FP32", [-1, -1, 3])}
    with aiaas.create(address, architecture="rnn", config=config, inputs=inputs, labels=["a", "b"], seed=1):
        pass
    x = np.arange(1, 11).reshape(2, 5) if tokens else rows(10, 3).reshape(2, 5, 3)
    found = load(address).explain(x)
    assert (found.method, found.array.shape) == ("integrated_gradients", x.shape)
    assert found.completeness_error < 1e-3
    assert np.abs(found.array).max() > 1e-4
