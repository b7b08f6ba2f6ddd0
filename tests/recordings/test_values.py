"""What others made survives as JSON, also what JSON lacks."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.errors import InputError
from aiaas_sdk.recordings.values import decode, encode


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "again"),
    [
        (None, None),
        ({"a": [True, 1, 2.5, "x", None]}, {"a": [True, 1, 2.5, "x", None]}),
        ((1, (2,)), [1, [2]]),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (Colour.RED, "red"),
        ([math.inf, -math.inf], [math.inf, -math.inf]),
        ({"$number": "NaN"}, {"$number": "NaN"}),
        ({"$number": {"$number": math.inf}}, {"$number": {"$number": math.inf}}),
        ({"$number": 1, "b": 2}, {"$number": 1, "b": 2}),
        (10**30, 10**30),
    ],
)
def test_it_comes_back(value: Any, again: Any) -> None:
    written = json.dumps(encode(value, "here"), allow_nan=False)
    found = decode(json.loads(written), "here")
    assert (found, type(found)) == (again, type(again))


def test_what_is_no_number_comes_back() -> None:
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan, "here"), allow_nan=False)), "here"))


def test_nothing_is_shared() -> None:
    value = {"a": [1]}
    written = encode(value, "here")
    value["a"].append(2)
    assert written == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"a": b"secret"}], "message 2 holds a bytes, which JSON hasn't"),
        ({1: 2}, "message 2 has a name that is no text but an int"),
        ({"a": {"s"}}, "message 2 holds a set"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        encode(value, "message 2")
    assert "secret" not in str(caught.value)
