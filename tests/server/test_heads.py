"""Heads that are remembered: which, how many, and that one never stands for another."""

from __future__ import annotations

from typing import Any

import pytest

from aiaas_sdk.server import heads
from aiaas_sdk.server.heads import head_of

LINES = [(b"host", b"127.0.0.1:8000"), (b"content-length", b"12"), (b"accept", b"*/*")]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_heads", {})


def test_the_same_head_is_understood_once() -> None:
    assert head_of(list(LINES)) is head_of(list(LINES))
    assert head_of([*LINES[:2], (b"accept", b"text/html")]).headers["accept"] == "text/html"


@pytest.mark.parametrize(
    "line", [(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-1"), (b"cookie", b"a=b"), (b"traceparent", b"00")]
)
def test_a_secret_and_what_never_comes_again_are_not_kept(line: tuple[bytes, bytes]) -> None:
    assert head_of([*LINES, line]).headers[line[0].decode()] == line[1].decode()
    assert not heads._heads


def test_neither_many_heads_nor_long_ones_fill_the_memory() -> None:
    for number in range(2000):
        head_of([*LINES, (b"x-number", b"%d" % number)])
    head_of([*LINES, (b"x-long", b"a" * 4000)])
    assert len(heads._heads) <= 256
    assert all(len(head.headers.get("x-long", "")) == 0 for head in heads._heads.values())


def test_lengths_hosts_and_origin() -> None:
    head = head_of([(b"host", b"[::1]:80"), (b"host", b"Example.com"), (b"origin", b"http://a"), *LINES[1:2] * 2])
    assert (head.hosts, head.origin, head.lengths) == (("[::1]", "example.com"), b"http://a", 2)


def test_requests_with_one_head_have_their_own_answers(serving: Any) -> None:
    client = serving("echo:?x=FP32[-1,1]")
    for number in (10.0, 11.0, 12.0):
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [number]}]}
        answer = client("POST", "/v2/models/echo/infer", body)
        assert answer.document["outputs"][0]["data"] == [number]
