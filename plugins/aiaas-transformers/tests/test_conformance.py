"""The conformance suite, for each thing that a model of transformers can do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aiaas_sdk.testing.conformance import Conformance, Subject


@pytest.fixture(scope="module", params=["base", "encoder", "classifier"])
def subject(request: pytest.FixtureRequest, small: SimpleNamespace) -> Subject:
    return Subject(getattr(small, request.param), absent=f"hf:{small.folder / 'nothing'}")


@pytest.mark.slow
class TestTransformers(Conformance):
    pass
