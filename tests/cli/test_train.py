"""`aiaas train`: a run here, and as a job there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.cli.app import app
from aiaas_sdk.server import serve_in_thread
from tests.server.training import create, rows


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the model `models/iris` and its rows."""
    monkeypatch.chdir(tmp_path)
    create(tmp_path)
    x, y = rows(64)
    np.savez("rows.npz", x=x, y=y)
    names = np.array(["a", "b", "c"])[y]
    lines = [",".join([*(f"{value:.6f}" for value in row), name]) for row, name in zip(x, names, strict=True)]
    Path("rows.csv").write_text("\n".join(["p,q,r,s,kind", *lines]))


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_run_here_is_shown_and_makes_the_next_version() -> None:
    lines = run("torch:models/iris", "rows.npz", "--epochs", "2", "--validation", "0.25").stdout.splitlines()
    shown = dict(line.split() for line in lines)
    assert shown["model"].endswith("models/iris@2")
    assert set(shown) == {"model", "seconds", "loss", "accuracy", "validation_loss", "validation_accuracy"}
    found = json.loads(run("torch:models/iris", "rows.csv", "--targets", "kind", "--json", "-o", "h.json").stdout)
    assert found["address"].endswith("models/iris@3")
    assert json.loads(Path("h.json").read_text())["history"] == found["history"]
    run("models/iris", "rows.npz", "-o", "h.png", "--metric", "f1", "--optimizer", "sgd", "--validation", "rows.npz")
    assert Path("h.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_settings_give_the_same_model() -> None:
    for _ in range(2):
        run("models/iris@1", "rows.npz", "--seed", "4", "--schedule", "cosine", "--clip-norm", "1", "--accumulate", "2")
    two, three = (Path(f"models/iris/{version}/weights.safetensors").read_bytes() for version in (2, 3))
    assert two == three


@pytest.mark.slow
def test_a_run_there_is_the_same_command() -> None:
    with serve_in_thread(["models"], jobs="jobs") as url:
        found = json.loads(run(f"{url}/v2/models/iris", "rows.npz", "--epochs", "2", "--seed", "1", "--json").stdout)
        assert found["address"] == f"oip+{url}/v2/models/iris/versions/2"
        assert found["id"].startswith("ftjob-")
        with aiaas.load(found["address"], timeout=10) as model:
            assert model.info().version == "2"
    here = json.loads(run("models/iris@1", "rows.npz", "--epochs", "2", "--seed", "1", "--json").stdout)
    assert here["history"] == found["history"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["models/nothing", "rows.npz"], 3, "nothing"),
        (["models/iris", "nothing.npz"], 2, "no file"),
        (["models/iris", "rows.npz", "--optimizer", "adamm"], 2, "Did you mean 'adam'"),
        (["models/iris", "rows.npz", "-o", "h.txt"], 2, "neither a .png nor a .json"),
        (["models/iris", "rows.npz", "--optimizer", "sgd", "--learning-rate", "1e30"], 5, "loss became"),
        (["echo:", "rows.npz"], 2, "fit isn't available"),
        (["http://127.0.0.1:9/v2/models/iris", "rows.npz"], 4, "can't connect"),
        (["models/iris"], 2, ""),
    ],
)
def test_an_error_is_told_and_has_a_code(arguments: list[str], code: int, words: str) -> None:
    assert words in run(*arguments, code=code).stderr
    assert not Path("models/iris/2").exists()


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_order_and_says_how_to_go_on() -> None:
    command = [sys.executable, "-m", "aiaas_sdk.cli", "train", "models/iris", "rows.npz", "--seed", "1", "--epochs"]
    process = subprocess.Popen([*command, "1000000"], stderr=subprocess.PIPE, text=True)
    try:
        _checkpoint()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "--resume" in told
    assert "Traceback" not in told
    assert not Path("models/iris/2").exists()


def _checkpoint() -> None:
    from tests.server.training import until

    until(lambda: list(Path("models/iris").glob(".training/*/0*")))
