"""A route keeps the promises of the member that answers; the first isn't there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from aiaas_sdk.testing.conformance import Conformance, Subject
from tests.testing import wrong

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with wrong.installed(tmp_path_factory.mktemp("right"), wrong.Right):
        told = wrong.subject(slow="right:slow")
        yield replace(told, address=["http://127.0.0.1:9/v2/models/main", "right:"], options={"retry": None})


@pytest.mark.slow
class TestRoute(Conformance):
    pass
