"""What Prometheus reads: the right numbers, and never more series than the operator's own words make."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from aiaas_sdk.testing.scripted import Script

ROWS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}
CHAT = {"model": "llm", "messages": [{"role": "user", "content": "a secret prompt"}]}


def samples(client: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each series and its value, as Prometheus' own parser reads them."""
    reply = client("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = parser.text_string_to_metric_families(reply.body.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(client: Any, name: str, **labels: str) -> float:
    return samples(client)[name, frozenset(labels.items())]


def test_calls_are_counted_by_model_version_verb_and_code(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]")
    for _ in range(3):
        client("POST", "/v2/models/one/infer", ROWS)
    client("POST", "/v2/models/one/infer", {"inputs": []})
    client("GET", "/v2/health/ready")
    found = samples(client)

    def one(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert one("aiaas_requests_total", model="one", version="1", verb="predict", code="200") == 3
    assert one("aiaas_requests_total", model="one", version="", verb="predict", code="400") == 1
    assert one("aiaas_requests_total", model="", version="", verb="health", code="200") == 1
    assert one("aiaas_calls_total", model="one", version="1", outcome="answered") == 3
    assert one("aiaas_rows_total", model="one", version="1") == 6
    assert one("aiaas_request_seconds_count", model="one", verb="predict") == 4
    assert one("aiaas_request_seconds_bucket", model="one", verb="predict", le="+Inf") == 4
    assert one("aiaas_queue_seconds_count", model="one", version="1") == 3
    assert one("aiaas_compute_seconds_count", model="one", version="1") == 3
    assert one("aiaas_batch_rows_bucket", model="one", version="1", le="1") == 0
    assert one("aiaas_batch_rows_bucket", model="one", version="1", le="2") == 3
    assert one("aiaas_batch_rows_sum", model="one", version="1") == 6
    assert one("aiaas_model_ready", model="one", version="1") == 1
    assert one("aiaas_requests_running") == 1  # this one
    assert one("process_resident_memory_bytes") > 1e6


def test_tokens_and_language_verbs_are_counted(serving: Any) -> None:
    script = Script()
    script.say("Hello!")
    script.stream(["Hel", "lo"])
    client = serving(f"llm={script.address}")
    client("POST", "/v1/chat/completions", CHAT)
    client("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    found = samples(client)
    verbs = {dict(labels)["verb"] for name, labels in found if name == "aiaas_requests_total"}
    assert verbs == {"generate", "stream"}


def test_tokens_are_counted(serving: Any) -> None:
    client = serving("llm=echo:")
    answer = client("POST", "/v1/chat/completions", CHAT).document
    for direction, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        told = value(client, "aiaas_tokens_total", model="llm", version="1", direction=direction)
        assert told == answer["usage"][name] > 0


def test_openmetrics_is_spoken_where_it_is_asked_for(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]")
    client("POST", "/v2/models/one/infer", ROWS)
    reply = client("GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0, text/plain"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(reply.body.decode())}
    assert families["aiaas_requests"].type == "counter"
    assert reply.body.endswith(b"# EOF\n")


def test_strangers_words_make_no_series(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", "llm=echo:")
    client("POST", "/v2/models/one/infer", ROWS)
    before = samples(client)
    for number in range(100):
        client("POST", f"/v2/models/strange{number}/infer", ROWS)
        client("GET", f"/strange/{number}", headers={"x-request-id": f"strange-{number}", "user-agent": f"s{number}"})
        client("POST", "/v1/chat/completions", {**CHAT, "model": f"strange-{number}"})
        client("POST", f"/v2/models/one/versions/{number + 7}/infer", {**ROWS, "id": f"strange-{number}"})
        client("POST", f"/v1/models/strange{number}:predict", {"instances": [[1]]})
        client("POST", "/invocations", {"instances": [[1]]}, {"x-amzn-sagemaker-target-model": f"strange{number}"})
        client(f"STRANGE{number}", "/v2")
    after = samples(client)
    new = after.keys() - before.keys()
    assert len(new) < 30, new
    text = client("GET", "/metrics").body
    assert b"strange" not in text
    assert b"secret" not in text


def test_names_have_their_units(serving: Any) -> None:
    client = serving("one=echo:")
    names = {name for name, _ in samples(client) if name.startswith("aiaas_")}
    ending = re.compile(
        r"aiaas_\w+?(_total|_seconds(_bucket|_sum|_count)?|_rows(_bucket|_sum|_count)|_running|_ready|_info)"
    )
    assert [name for name in names if not ending.fullmatch(name)] == []


def test_they_can_be_switched_off(serving: Any) -> None:
    assert serving("one=echo:", metrics=False)("GET", "/metrics").status == 404


@pytest.mark.slow
def test_a_model_that_isnt_open_isnt_ready(serving: Any) -> None:
    client = serving("far=http://127.0.0.1:9/v2/models/x")
    assert value(client, "aiaas_model_ready", model="far", version="") == 0
