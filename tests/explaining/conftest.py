"""Small models to explain: here, behind our server, and behind one that can't explain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import oip as server_oip
from aiaas_sdk.server import serve_in_thread

torch = pytest.importorskip("torch")
LABELS = [str(digit) for digit in range(10)]
FEATURES = ["age", "income", "height", "weight"]


@aiaas.architecture("explained-linear")
class Linear(torch.nn.Module):
    """One number a row: weights times features, and 3."""

    def __init__(self, features: int = 20) -> None:
        super().__init__()
        self.config = {"features": features}
        self.layer = torch.nn.Linear(features, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(features, dtype=torch.float32)[None] - features / 2)
            self.layer.bias.fill_(3.0)

    def forward(self, x: Any) -> Any:
        return self.layer(x)[:, 0]


@aiaas.architecture("explained-pixel")
class Pixel(torch.nn.Module):
    """A convolution that sees all, and two scores that one pixel decides, (9, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.look = torch.nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            self.look.weight.zero_()
            self.look.weight[0, 0, 1, 1] = 1.0
            self.look.bias.zero_()

    def forward(self, images: Any) -> Any:
        seen = torch.relu(self.look(images))[:, 0, 9, 5]
        return torch.stack((1 - seen, 4 * seen), dim=1)


def _saved(folder: Path, name: str, module: Any, example: Any, **more: Any) -> None:
    aiaas.save(module.eval(), folder / name, example=example, **more)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles, each by its name."""
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        torch.manual_seed(1)
        from aiaas_sdk.architectures.cnn import CNN
        from aiaas_sdk.architectures.mlp import MLP

        cnn = CNN(height=12, width=12, classes=10, filters=(4, 8), hidden=16)
        _saved(folder, "digits", cnn, np.zeros((1, 1, 12, 12), np.float32), labels=LABELS)
        table = MLP(features=4, classes=3, hidden=(8,))
        _saved(folder, "table", table, np.zeros((1, 4), np.float32), metadata={"features": FEATURES})
        _saved(folder, "linear", Linear(), np.zeros((1, 20), np.float32))
        _saved(folder, "pixel", Pixel(), np.zeros((1, 1, 14, 14), np.float32))
        small = {"width": 32, "layers": 2, "heads": 4, "context": 32}
        for kind in ("encoder", "decoder"):
            aiaas.create(
                f"torch:{folder / kind}",
                architecture="transformer",
                config={**small, "kind": kind},
                tokenizer="bytes",
                seed=3,
            ).close()
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[str]:
    """Our server with all of them."""
    names = ("digits", "table", "linear", "pixel", "encoder", "decoder")
    with serve_in_thread([f"torch:{folder / name}" for name in names]) as server:
        yield str(server)


@pytest.fixture(scope="session")
def plain_server(folder: Path) -> Iterator[str]:
    """A server of the same protocol that can't explain."""
    with ExitStack() as stack:
        # what a server can is read as it is made; those that later tests make can explain, so this ends before they run
        with pytest.MonkeyPatch.context() as patch:
            kept = tuple(name for name in server_oip.EXTENSIONS if name != "explain")
            patch.setattr(server_oip, "EXTENSIONS", kept)
            targets = [f"torch:{folder / name}" for name in ("digits", "table", "linear", "pixel")]
            server = stack.enter_context(serve_in_thread(targets))
        yield str(server)


@pytest.fixture
def at(folder: Path, request: pytest.FixtureRequest) -> Any:
    """The address of a model: "here", at our "server", or at the "plain" one."""

    def address(where: str, name: str) -> str:
        if where == "here":
            return f"torch:{folder / name}"
        url = request.getfixturevalue("server" if where == "server" else "plain_server")
        return f"{url}/v2/models/{name}"

    return address


def images(rows: int, size: int = 12) -> Any:
    return np.random.default_rng(rows).standard_normal((rows, 1, size, size)).astype(np.float32)


def rows(count: int, features: int = 4) -> Any:
    return np.random.default_rng(count).standard_normal((count, features)).astype(np.float32)
