"""Rows from .csv files: what stands in them is what is learned from, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import rowfiles
from aiaas_sdk.records.model import ModelInfo, TensorSpec


def read(folder: Path, text: str, datatype: str, y: Any = None) -> Any:
    info = ModelInfo(
        name="m",
        inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1, 2)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 2)),),
    )
    (folder / "rows.csv").write_text(text)
    return rowfiles.read(folder / "rows.csv", y, info)


@pytest.mark.parametrize(
    ("datatype", "wanted"),
    [
        ("BOOL", np.array([[False, True], [True, False]])),
        ("UINT8", np.array([[0, 1], [1, 0]], np.uint8)),
        ("INT64", np.array([[0, 1], [1, 0]])),
        ("FP64", np.array([[0.0, 1.0], [1.0, 0.0]])),
    ],
)
def test_numbers_become_what_the_model_takes(tmp_path: Path, datatype: str, wanted: Any) -> None:
    x, y = read(tmp_path, "a,b,y\n0,1,1\n1,0,0\n", datatype)
    assert x.dtype == wanted.dtype
    assert np.array_equal(x, wanted)
    assert y.tolist() == [1, 0]


def test_a_large_whole_number_stays_as_it_is(tmp_path: Path) -> None:
    x, _ = read(tmp_path, f"a,b,y\n{2**62 + 1},-3,1\n", "INT64")
    assert x.tolist() == [[2**62 + 1, -3]]


@pytest.mark.parametrize(
    ("text", "datatype", "match"),
    [
        ("a,b,y\n1,2,0\n0.5,1,0\n", "INT64", "'a' has '0.5' in row 1, which is no whole number"),
        ("a,b,y\n1,300,0\n", "UINT8", "'b' has '300' in row 0; the model takes 0 to 255"),
        ("a,b,y\n1,2,0\n", "BOOL", "'b' has '2' in row 0; the model takes 0 to 1"),
        ("a,b,y\n1,,0\n", "FP32", "'b' has '' in row 0, which is no number"),
        ("a,a,y\n1,2,0\n", "FP32", "several columns called 'a'"),
        ("a,b,y\n", "FP32", "has no rows"),
        ("a;b;y\n1;2;3\n", "FP32", "no column beside 'a;b;y'.*commas"),
        ("a,b,y\n1,2\n", "FP32", "row 0 has 2 fields, and there are 3 columns"),
    ],
)
def test_what_can_not_be_read_as_it_stands_is_refused(tmp_path: Path, text: str, datatype: str, match: str) -> None:
    with pytest.raises(aiaas.InputError, match=match):
        read(tmp_path, text, datatype)
