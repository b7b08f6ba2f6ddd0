"""The client of OpenAI's API keeps its promises, before `aiaas serve`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing.conformance import Conformance, Subject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    with serve_in_thread(["echo=echo:"]) as url:
        yield Subject(
            f"openai+{url}/v1#echo",
            absent=f"openai+{url}/v1#nothing",
            unreachable="openai+http://127.0.0.1:9/v1#echo",
        )


class TestOpenAI(Conformance):
    pass
