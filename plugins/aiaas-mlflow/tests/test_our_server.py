"""The same backend before `aiaas serve`, which answers `/invocations`, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as url:
        yield f"mlflow+{url}"


def test_the_server_is_known_and_ready(load: Any, served: str) -> None:
    with load(f"{served}/invocations", timeout=10) as model:
        assert model.info().verbs == {"predict"}
        assert model.ready()


def test_numbers_go_and_come(load: Any, served: str) -> None:
    x = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    with load(served, timeout=10) as model:
        for inputs in (x, {"x": x}):
            assert (model.predict(inputs)["predictions"] == x.astype(np.float64)).all()


def test_columns_are_a_table(load: Any) -> None:
    with serve_in_thread(["ab=echo:?a=INT64[-1]&b=BYTES[-1]"]) as url, load(f"mlflow+{url}", timeout=10) as model:
        answer = model.predict({"a": np.array([1, 2]), "b": np.array(["u", "v"], object)})
        assert answer["a"].tolist() == [1, 2]
        assert answer["b"].tolist() == [b"u", b"v"]


def test_errors_are_told_in_their_words(load: Any, served: str) -> None:
    wrong = np.zeros((2, 2), np.float32)
    with load(served, timeout=10) as model, pytest.raises(aiaas.InvalidRequestError, match=r"BAD_REQUEST.*shape"):
        model.predict(wrong)
