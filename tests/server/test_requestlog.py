"""The access log: one line of JSON for each request, and nothing in it that isn't the operator's to know."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from aiaas_sdk.server.ledger import Ledger
from aiaas_sdk.server.permissions import Caller, entering
from aiaas_sdk.server.requestlog import Requests
from aiaas_sdk.server.room import Room
from aiaas_sdk.testing.scripted import Script

ROWS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}
CHAT = {"model": "llm", "messages": [{"role": "user", "content": "a secret prompt"}]}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[dict[str, Any]]]:
    """The lines so far; a line is written after its answer, and is waited for."""
    caplog.set_level(logging.INFO, "aiaas_sdk.server.access")

    def read(count: int) -> list[dict[str, Any]]:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            found = [record.getMessage() for record in caplog.records if record.name == "aiaas_sdk.server.access"]
            if len(found) >= count:
                break
            time.sleep(0.01)
        assert len(found) == count
        assert all("\n" not in line and "secret" not in line for line in found)
        return [json.loads(line) for line in found]

    return read


def test_a_line_says_what_was_asked_and_how_it_went(serving: Any, lines: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", access_log=True)
    reply = client("POST", "/v2/models/one/infer?key=secret", ROWS, headers={"x-request-id": "my-own.id"})
    (line,) = lines(1)
    assert (
        line.items()
        >= {
            "method": "POST",
            "path": "/v2/models/{model}/infer",
            "model": "one",
            "version": "1",
            "verb": "predict",
            "status": 200,
            "rows": 2,
            "received": len(json.dumps(ROWS)),
            "sent": len(reply.body),
            "caller": None,
            "request_id": "my-own.id",
        }.items()
    )
    assert 0 < line["queue"] + line["compute"] < line["seconds"] < 5
    assert line["time"].endswith("Z")


def test_what_is_refused_has_a_line_too(serving: Any, lines: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", access_log=True)
    client("POST", "/v2/models/one/infer", b"rubbish")
    client("GET", "/nothing/secret")
    client("POST", "/v2/models/secret/infer", ROWS)
    client("PURGE", "/v2")
    found = lines(4)
    assert [line["status"] for line in found] == [400, 404, 404, 405]
    assert [line["model"] for line in found] == ["one", None, "other", None]
    assert [line["path"] for line in found[1:]] == ["other", "/v2/models/{model}/infer", "/v2"]
    assert found[3]["method"] == "other"
    assert all(line["request_id"].startswith("req_") for line in found)


def test_a_stream_has_one_line_at_its_end(serving: Any, lines: Any) -> None:
    script = Script()
    script.stream(["Hel", "lo"])
    client = serving(f"llm={script.address}", access_log=True)
    reply = client("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    (line,) = lines(1)
    assert (line["verb"], line["status"], line["model"]) == ("stream", 200, "llm")
    assert line["sent"] == len(reply.body)
    assert line["request_id"] == reply.headers["x-request-id"]


def test_tokens_are_told(serving: Any, lines: Any) -> None:
    client = serving("llm=echo:", access_log=True)
    usage = client("POST", "/v1/chat/completions", CHAT).document["usage"]
    (line,) = lines(1)
    assert (line["input_tokens"], line["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_control_characters_are_escaped(lines: Any, caplog: pytest.LogCaptureFixture) -> None:
    def request() -> None:
        entering(Caller("a\nb\x1b[31m"))
        requests = Requests(Ledger(), ("one",), Room(1), logged=True)
        told = [(b"x-request-id", b"a\x1b[31mb")]
        requests.ended(requests.begun(), {"method": "GET", "path": "/\n\x1b[31m", "headers": told})

    copy_context().run(request)
    (line,) = lines(1)
    assert line["caller"] == "a\nb\x1b[31m"
    assert "\x1b" not in caplog.records[-1].getMessage()
    assert line["request_id"].startswith("req_")


def test_a_client_that_left_is_told_apart(serving: Any, lines: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", access_log=True)
    client.send(b"POST /v2/models/one/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", 0.2)
    (line,) = lines(1)
    assert line["status"] == 499


def test_it_is_off_unless_it_is_asked_for(serving: Any, lines: Any) -> None:
    client = serving("one=echo:")
    client("GET", "/v2")
    time.sleep(0.1)
    assert lines(0) == []
