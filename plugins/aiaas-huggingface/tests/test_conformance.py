"""The conformance suite: before what answers as TGI and TEI do, and before transformers' own pipelines."""

from __future__ import annotations

import pytest

from aiaas_sdk.testing.conformance import Conformance, Subject

pytestmark = pytest.mark.slow
EXEMPT = {"generate_takes_messages": "it continues a text; TGI takes messages at openai+https://HOST/v1"}
UNTOLD = {**EXEMPT, "generate_keeps_to_max_tokens": "task JSON doesn't tell why an answer ended"}
UNREACHABLE = "huggingface+http://127.0.0.1:9"


class TestStandIn(Conformance):
    @pytest.fixture(scope="class", params=["tgi", "embedder", "classifier", "reranker"])
    @classmethod
    def subject(cls, request: pytest.FixtureRequest, stand_in: str) -> Subject:
        return Subject(
            f"{stand_in}/{request.param}", absent=f"{stand_in}/nothing", unreachable=UNREACHABLE, exempt=EXEMPT
        )


@pytest.mark.peer
class TestPipelines(Conformance):
    @pytest.fixture(scope="class", params=["text-generation", "text-classification"])
    @classmethod
    def subject(cls, request: pytest.FixtureRequest, pipelines: str) -> Subject:
        task = request.param
        return Subject(
            f"{pipelines}/{task}/pipeline/{task}", absent=f"{pipelines}/nothing/pipeline/{task}", exempt=UNTOLD
        )
