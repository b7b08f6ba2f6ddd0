"""The reference backend keeps every promise that it can be asked."""

from __future__ import annotations

import pytest

from aiaas_sdk.tensors import DATATYPES
from aiaas_sdk.testing.conformance import Conformance, Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(
        "echo:?x=FP32[-1,3]&n=INT64[-1,2]",
        reference=lambda inputs: inputs,
        datatypes={name: f"echo:?x={name}[-1,2]" for name in DATATYPES},
    )


class TestEcho(Conformance):
    pass
