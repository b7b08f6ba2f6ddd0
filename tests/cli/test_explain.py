"""`aiaas explain`: pictures, files and a summary."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aiaas_sdk.cli.app import app

TABLE = "echo:?x=FP32[-1,4]"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.array([[1, 2, 4, 3], [5, 1, 1, 1]], np.float32))


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_summary_ranks_the_features() -> None:
    lines = [line.split() for line in run(TABLE, "x.npy").stdout.splitlines()]
    assert lines[:3] == [["model", "echo@1"], ["method", "shap"], ["target", "2,", "0"]]
    assert lines[-4:-2] == [["x[0]", "2.5"], ["x[2]", "2"]]


def test_a_document_has_the_attributions() -> None:
    found = json.loads(run(TABLE, "x.npy", "--json", "--target", "1").stdout)
    assert found["attributions"] == {"x": [[0, 2, 0, 0], [0, 1, 0, 0]]}
    assert (found["method"], found["target"], found["completeness_error"]) == ("shap", [1, 1], 0)


@pytest.mark.parametrize("name", ["why.png", "why.html"])
def test_a_picture_is_drawn(name: str) -> None:
    pytest.importorskip("PIL")
    run(TABLE, "x.npy", "-o", name)
    assert Path(name).read_bytes().startswith(b"\x89PNG" if name.endswith("png") else b"<!DOCTYPE html>")


def test_a_file_holds_the_attributions() -> None:
    run(TABLE, "x.npy", "-o", "why.npz", "--method", "occlusion")
    with np.load("why.npz") as archive:
        assert archive["x"].tolist() == [[0, 0, 4, 0], [5, 0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("x.npy", "--target", "cat"), "has no labels"),
        (("x.npy", "--target", "4"), "no target 4"),
        (("x.npy", "--method", "grad_cam"), "grad_cam needs gradients"),
        (("x.npy", "-o", "why.jpg"), "Give .png, .html, .npz, .npy, .json or .csv"),
        (("none.npy",), "no file none.npy"),
        (("a text", "--text"), "texts"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], says: str) -> None:
    assert says in run(TABLE, *arguments, code=2).stderr


PICTURE = "echo:?x=FP32[-1,1,4,4]"


@pytest.mark.parametrize(("model", "name"), [(TABLE, "why.png"), (TABLE, "why.PNG"), (PICTURE, "why.html")])
def test_without_pillow_a_picture_is_refused_before_anything_is_explained(
    model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)  # importing it fails
    told = " ".join(run(model, "none.npy", "-o", name, code=2).stderr.split())  # before the input is looked for, too
    assert 'drawing needs the package pillow Install it: pip install "aiaas-sdk[plots]"' in told


def test_without_pillow_a_page_of_bars_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    run(TABLE, "x.npy", "-o", "why.html")
    assert Path("why.html").read_bytes().startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("name", ["why.png", "why.html", "why.npz"])
def test_a_folder_that_is_not_there_is_told_before_anything_is_explained(name: str) -> None:
    pytest.importorskip("PIL")
    assert "there is no folder nowhere" in run(TABLE, "none.npy", "-o", f"nowhere/{name}", code=2).stderr
