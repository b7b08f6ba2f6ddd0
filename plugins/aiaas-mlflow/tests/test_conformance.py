"""The conformance suite, before MLflow's own scoring server."""

from __future__ import annotations

import numpy as np
import pytest

from aiaas_sdk.testing.conformance import Conformance, Subject

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def subject(scoring: str) -> Subject:
    return Subject(
        f"{scoring}/double",
        reference=lambda inputs: {"y": 2 * inputs["x"]},
        # the model reads what comes as float64, and answers so
        inputs=lambda rows, seed: {"x": np.random.default_rng(seed).uniform(size=(rows, 3))},
        failing={"x": np.array([[-999.0, 0, 0.123456789]])},
        slow=f"{scoring}/slow",
        absent=f"{scoring}/nothing",
        unreachable="mlflow+http://127.0.0.1:9",
    )


class TestMlflow(Conformance):
    pass
