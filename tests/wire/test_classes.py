"""The best classes of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiaas_sdk.errors import InputError
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.classes import best


def told(array: Any, datatype: str, count: int, rows: bool = True, labels: Any = None) -> Any:
    return best(Tensor(datatype, array), count, labels=labels, rows=rows, where="output 'y'").array.tolist()


def test_the_best_come_first_and_equal_ones_in_their_order() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, np.nan]], np.float32)
    assert told(scores, "FP32", 2) == [[b"0.7:1", b"0.2:2"], [b"0.5:0", b"0.5:1"]]


def test_labels_stand_behind_the_index() -> None:
    scores = np.array([[1, 3, 2]], np.float32)
    assert told(scores, "FP32", 9, labels=("cat", "dog")) == [[b"3.0:1:dog", b"2.0:2", b"1.0:0:cat"]]


@pytest.mark.parametrize(
    ("array", "datatype", "expected"),
    [
        (np.array([[0, 255]], np.uint8), "UINT8", [[b"255:1"]]),
        (np.array([[-(2**63), 2**63 - 1]]), "INT64", [[b"9223372036854775807:1"]]),
        (np.array([[0x3F80, 0x4000]], np.uint16), "BF16", [[b"2.0:1"]]),
        (np.zeros((1, 2, 2), np.float32), "FP32", [[b"0.0:0"]]),
        (np.zeros((0, 3), np.float32), "FP32", []),
    ],
)
def test_all_numbers_have_best_ones(array: Any, datatype: str, expected: Any) -> None:
    assert told(array, datatype, 1) == expected


def test_an_output_without_rows_is_one_row() -> None:
    assert told(np.array([1, 2], np.float32), "FP32", 5, rows=False) == [b"2.0:1", b"1.0:0"]


def test_texts_have_no_best_ones() -> None:
    with pytest.raises(InputError, match="BYTES"):
        told(np.array([[b"a"]], object), "BYTES", 1)
