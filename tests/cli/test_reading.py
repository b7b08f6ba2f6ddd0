"""Files of inputs, read as a model wants them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.cli.reading import read
from aiaas_sdk.records.model import ModelInfo, TensorSpec


def info(**inputs: tuple[str, tuple[int, ...]]) -> ModelInfo:
    return ModelInfo(name="m", inputs=tuple(TensorSpec(name, *spec) for name, spec in inputs.items()))


ONE = info(x=("FP32", (-1, 3)))
TWO = info(x=("FP32", (-1, 2)), n=("INT64", (-1,)))
TEXT = info(text=("BYTES", (-1, 1)))


def stored(path: Path, content: Any) -> list[str]:
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_text(content)
    return [str(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", np.array([[1, 2, 3]], np.float32)),
        ("a.npy", np.array([[1, 2, 3]], np.float64)),
        ("a.npy", np.array([[1, 2, 3]], ">i8")),
        ("a.npz", {"x": np.array([[1, 2, 3]], np.float32)}),
        ("a.npz", {"arr_0": np.array([[1, 2, 3]], np.float32)}),
        ("a.json", [[1, 2, 3]]),
        ("a.json", {"x": [[1.0, 2.0, 3.0]]}),
        ("a.csv", "1,2,3\n"),
        ("a.csv", "width,height,depth\n1, 2.0, 3e0\n\n"),
        ("a.csv", "\ufeffx[2],x[0],x[1]\n3,1,2\n"),
        ("A.CSV", "1,2,3"),
    ],
)
def test_each_kind_of_file_becomes_the_one_input(tmp_path: Path, name: str, content: Any) -> None:
    found = read(stored(tmp_path / name, content), ONE, None)
    assert list(found) == ["x"]
    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", {"x": np.ones((1, 2)), "n": np.array([7])}),
        ("a.json", {"x": [[1, 1]], "n": [7]}),
        ("a.csv", "n,x[0],x[1]\n7,1,1\n"),
    ],
)
def test_several_inputs_are_taken_by_name(tmp_path: Path, name: str, content: Any) -> None:
    found = read(stored(tmp_path / name, content), TWO, None)
    assert found["x"].tolist() == [[1, 1]]
    assert (found["n"].tolist(), found["n"].dtype) == ([7], np.int64)


def test_one_array_can_be_given_to_a_named_input(tmp_path: Path) -> None:
    paths = stored(tmp_path / "a.npy", np.array([7]))
    assert list(read(paths, TWO, "n")) == ["n"]
    with pytest.raises(aiaas.InputError, match="has 2 inputs: x, n"):
        read(paths, TWO, None)
    with pytest.raises(aiaas.InputError, match="no input 'y'"):
        read(paths, TWO, "y")


def test_texts_and_missing_numbers_are_taken_from_tables(tmp_path: Path) -> None:
    assert read(stored(tmp_path / "a.csv", "text\nnan\n1\n"), TEXT, None)["text"].tolist() == [[b"nan"], [b"1"]]
    found = read(stored(tmp_path / "b.csv", "1,,3\n"), ONE, None)["x"]
    assert np.isnan(found[0, 1])
    flags = read(stored(tmp_path / "c.csv", "f\ntrue\nFalse\n"), info(f=("BOOL", (-1,))), None)["f"]
    assert flags.tolist() == [True, False]


def test_a_table_fills_an_input_of_more_axes_row_by_row(tmp_path: Path) -> None:
    found = read(stored(tmp_path / "a.csv", "1,2,3,4\n5,6,7,8\n"), info(x=("FP32", (-1, 1, 2, 2))), None)["x"]
    assert found.tolist() == [[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]]


def test_a_model_without_a_signature_takes_what_is_there(tmp_path: Path) -> None:
    assert read(stored(tmp_path / "a.npy", np.array([1])), info(), None)["input"].tolist() == [1]
    assert read(stored(tmp_path / "a.csv", "1,2\n"), info(), "z")["z"].tolist() == [[1, 2]]
    assert read(stored(tmp_path / "a.json", [1, 2]), info(), None) == {"input": [1, 2]}


@pytest.mark.parametrize(
    ("dtype", "value", "datatype", "kept"),
    [
        (np.float64, 0.1, "FP32", True),
        (np.float64, 1e300, "FP32", False),
        (np.float64, np.nan, "FP16", True),
        (np.int64, 2**24 + 1, "FP32", False),
        (np.int64, -1, "UINT64", False),
        (np.uint64, 2**64 - 1, "INT64", False),
        (np.float32, 1.5, "INT64", False),
        (np.float32, 2.0, "INT64", True),
        (np.int64, 1, "BOOL", True),
        (np.int64, 2, "BOOL", False),
        (np.float32, 0.5, "BF16", True),
    ],
)
def test_an_array_is_converted_where_its_values_stay(
    tmp_path: Path, dtype: Any, value: Any, datatype: str, kept: bool
) -> None:
    given = np.array([value], dtype)
    found = read(stored(tmp_path / "a.npy", given), info(x=(datatype, (-1,))), None)["x"]
    assert (found.dtype != dtype or datatype == "BF16") is kept
    if not kept:
        assert found.dtype == dtype  # so that the model refuses it


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1", "of no known kind"),
        ("a.json", "nonsense", "m wants FP32"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "a,b,c\n", "has no rows"),
        ("a.csv", "1,2,3\n1,2\n", "row 1 has 2 columns, and the first 3"),
        ("a.csv", "1,2,3\n1,x,3\n", "a.csv: row 1, column 1 is no number"),
        ("a.json", [["a"]], "values that aren't numbers"),
        ("a.json", [[1], [1, 2]], "ragged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(aiaas.InputError, match=message):
        read(stored(tmp_path / name, content), ONE, None)


def test_broken_files_are_refused_without_their_contents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1,\n2, "secret text"')
    with pytest.raises(aiaas.InputError, match=r"isn't JSON \(line 2\)") as caught:
        read([str(tmp_path / "a.json")], ONE, None)
    assert "secret" not in str(caught.value)
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(aiaas.InputError, match="can't be read"):
            read([str(tmp_path / name)], ONE, None)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe1")
    with pytest.raises(aiaas.InputError, match="UTF-8"):
        read([str(tmp_path / "a.csv")], ONE, None)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", allow_pickle=True, x=np.array([Trap()], object))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz", "b.npy"):
        with pytest.raises(aiaas.InputError, match="arrays of numbers alone"):
            read([str(tmp_path / name)], ONE, None)
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_there_or_mixed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(aiaas.InputError, match="no file"):
        read([str(tmp_path / "a.npy")], ONE, None)
    paths = stored(tmp_path / "a.npy", np.ones(1)) + stored(tmp_path / "b.npy", np.ones(1))
    with pytest.raises(aiaas.InputError, match="aren't all images"):
        read(paths, ONE, None)
    with pytest.raises(aiaas.InputError, match="--input is for a file with one array"):
        read(stored(tmp_path / "a.json", {"x": []}), ONE, "x")
    with pytest.raises(aiaas.InputError, match="no column 'n'"):
        read(stored(tmp_path / "a.csv", "x[0],x[1],m\n1,2,3\n"), TWO, None)
