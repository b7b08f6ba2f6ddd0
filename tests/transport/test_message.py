"""Requests as bytes."""

from __future__ import annotations

import pytest

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Request
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.transport import message
from aiaas_sdk.transport.message import Message


def sent(headers: dict[str, str | Hidden]) -> bytes:
    outgoing = Message(Request("POST", "http://host:80/p", headers, (b"ab", b"c"))).outgoing()
    return b"".join(bytes(view) for view in outgoing.several())


def test_a_request_as_it_is_sent() -> None:
    for number in (1, 2, 1):
        head, _, body = sent({"X-Number": str(number), "Content-Length": "99"}).partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[:2] == [b"POST /p HTTP/1.1", b"host: host"]
        assert f"x-number: {number}".encode() in lines
        assert [line for line in lines if line.startswith(b"content-length")] == [b"content-length: 3"]
        assert body == b"abc"


def test_what_is_refused_once_is_refused_again() -> None:
    wrong = [{"na me": "x"}, {"name": "a\r\nb"}, {"name": " a"}, {"name": "\u20ac"}, {"name": "x" * 65537}]
    for headers in [*wrong, *wrong, {"name": Hidden("a\nb")}]:
        with pytest.raises(ConfigError, match="header"):
            sent(headers)  # type: ignore[arg-type]


def test_what_is_hidden_and_what_is_long_is_sent_and_not_remembered() -> None:
    sent({})
    before = message._known.cache_info()
    found = sent({"authorization": Hidden("Bearer abc"), "long": "x" * 65})
    assert b"authorization: Bearer abc\r\n" in found
    assert b"long: " + b"x" * 65 in found
    assert message._known.cache_info() == before
