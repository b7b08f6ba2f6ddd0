"""A recording of the suite's own questions keeps the promises of the model that was recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiaas_sdk.testing import recording
from aiaas_sdk.testing.conformance import Conformance, Subject, report

pytestmark = pytest.mark.slow
ECHO = "echo:?x=FP32[-1,3]&n=INT64[-1,2]"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = tmp_path_factory.mktemp("recording") / "suite.jsonl"
    # a stream that was left when it was recorded can't be read on, and equal questions get their answers in order
    reason = "the suite asks the same again, and reads to the end"
    left = ("a_stream_may_be_left_early", "a_stream_may_be_dropped", "a_stream_left_awaited_leaves_the_model_usable")
    echo = Subject(ECHO, reference=lambda inputs: inputs, exempt=dict.fromkeys(left, reason))
    with recording(path, "record"):
        found = report(echo)
    assert not found.failed, found
    return replace(echo, address=f"replay:{path}")


class TestReplay(Conformance):
    pass
