"""Outputs as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.cli.reading import read
from aiaas_sdk.cli.writing import check, write, write_top
from aiaas_sdk.records.model import ModelInfo, TensorSpec

Y = np.array([[1.5, 2.5], [3.5, 0.1]], np.float32)
N = np.array([7, 8])
INFO = ModelInfo(name="m", inputs=(TensorSpec("y", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))))


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
def test_what_is_written_can_be_read_as_inputs_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write({"y": Y, "n": N}, path)
    found = read([str(path)], INFO, None)
    assert np.array_equal(found["y"], Y)
    assert np.array_equal(found["n"], N)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_npy_holds_the_one_output(tmp_path: Path) -> None:
    write({"y": Y}, tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), Y)
    with pytest.raises(aiaas.InputError, match="holds one array, and there are 2"):
        write({"y": Y, "n": N}, tmp_path / "a.npy")


def test_json_has_null_for_what_it_cannot_say_and_text_for_bytes(tmp_path: Path) -> None:
    write({"y": np.array([np.nan, np.inf, 1]), "t": np.array([["ä".encode()]], object)}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"y": [None, None, 1.0], "t": [["ä"]]}


def test_any_output_name_can_be_written_to_npz(tmp_path: Path) -> None:
    write({"file": N, "a/b": Y}, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert found["file"].tolist() == [7, 8]
        assert found["a/b"].shape == (2, 2)


def test_tables_have_a_line_for_each_row(tmp_path: Path) -> None:
    write({"y": np.zeros((2, 1, 2)), "t": np.array([b"a,b", b"c"], object)}, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == 'y[0],y[1],t\n0.0,0.0,"a,b"\n0.0,0.0,c\n'
    write({"y": np.zeros((0, 2))}, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "y[0],y[1]\n"
    with pytest.raises(aiaas.InputError, match="same number of rows"):
        write({"y": Y, "n": np.zeros(3)}, tmp_path / "a.csv")


def test_the_best_classes_are_written_as_json_or_csv(tmp_path: Path) -> None:
    top = [[("cat", 0.75), ("dog", 0.25)], [("dog", 1.0), ("cat", 0.0)]]
    write_top(top, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())[0] == [["cat", 0.75], ["dog", 0.25]]
    write_top(top, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[:3] == [
        "row,rank,label,probability",
        "0,1,cat,0.75",
        "0,2,dog,0.25",
    ]


@pytest.mark.parametrize(
    ("path", "outputs", "top", "message"),
    [
        ("a.txt", ["y"], False, "no kind that can be written"),
        ("a", ["y"], False, "no kind that can be written"),
        ("a.npz", ["y"], True, "no kind that can be written"),
        ("missing/a.npz", ["y"], False, "no folder"),
        ("a.npy", ["y", "n"], False, "holds one array"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_model_is_called(
    tmp_path: Path, path: str, outputs: list[str], top: bool, message: str
) -> None:
    with pytest.raises(aiaas.InputError, match=message):
        check(tmp_path / path, outputs, top=top)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(aiaas.InputError, match="can't be written"):
        write({"y": Y}, tmp_path / "a.npz")
    bad: dict[str, Any] = {"t": np.array([b"\xff"], object)}
    for name, message in (("b.npz", "text, which numpy"), ("b.json", "aren't UTF-8"), ("b.csv", "aren't UTF-8")):
        with pytest.raises(aiaas.InputError, match=message):
            write(bad, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
