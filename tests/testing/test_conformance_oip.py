"""The Open Inference Protocol's client keeps its promises, before `aiaas serve` and before MLServer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.tensors import DATATYPES
from aiaas_sdk.testing.conformance import Conformance, Subject
from tests.testing import wrong

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with wrong.installed(tmp_path_factory.mktemp("right"), wrong.Right):
        kinds = [f"{name}=right:{name}" for name in DATATYPES]
        with serve_in_thread(["main=right:", "slow=right:slow", *kinds]) as url:
            yield f"{url}/v2/models"


@pytest.fixture(scope="module")
def subject(url: str) -> Subject:
    told = wrong.subject()
    return Subject(
        f"{url}/main",
        reference=told.reference,
        datatypes={name: f"{url}/{name}" for name in DATATYPES},
        failing=told.failing,
        slow=f"{url}/slow",
        absent=f"{url}/nothing",
        unreachable="http://127.0.0.1:9/v2/models/main",
    )


class TestServed(Conformance):
    pass


@pytest.mark.peer
class TestMLServer(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, mlserver: Any) -> Subject:
        return Subject(
            f"{mlserver}/v2/models/double",
            reference=lambda inputs: {"y": 2 * inputs["x"]},
            inputs=lambda rows, seed: {"x": np.random.default_rng(seed).uniform(size=(rows, 3)).astype(np.float32)},
            failing={"x": np.array([[-1, 0, 0]], np.float32)},
            exempt={"no_rows_give_no_rows": "the model in the server looks at its first row"},
            absent=f"{mlserver}/v2/models/nothing",
            unreachable="http://127.0.0.1:9/v2/models/double",
        )
