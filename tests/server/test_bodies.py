"""Bodies piece by piece, as ASGI hands them over: no sockets."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server.bodies import LeftError, read_body
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import Head

MIB = 1024**2


def read(*pieces: bytes, left: bool = False, limit: int = MIB, inflated: int = MIB, **headers: str) -> Any:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if left:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    head = Head([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    return asyncio.run(read_body(head, receive, limit=limit, inflated=inflated))


@pytest.mark.parametrize("length", [{}, {"content_length": "6"}])
def test_pieces_become_one_body(length: dict[str, str]) -> None:
    assert bytes(read(b"ab", b"", b"cdef", **length)) == b"abcdef"
    assert bytes(read(b"abcdef", **length)) == b"abcdef"


@pytest.mark.parametrize("head", range(0, 130, 13))
def test_what_lies_behind_the_head_is_aligned(head: int) -> None:
    body = read(bytes(100), bytes(100), content_length="200", inference_header_content_length=str(head))
    assert np.frombuffer(body, np.uint8)[head:].ctypes.data % 64 == 0


@pytest.mark.parametrize("pieces", [(b"abc", b"defg"), (b"abc", b"d")])
def test_a_length_that_isnt_true_is_refused(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(RefusedError, match="Content-Length"):
        read(*pieces, content_length="6")


def test_a_client_that_left_is_no_error_of_the_body() -> None:
    with pytest.raises(LeftError):
        read(b"abc", left=True, content_length="6")


@pytest.mark.parametrize("pieces", [(b"abcdef",), (b"abc", b"def"), (b"abcdef", b"")])
def test_more_than_the_limit_is_refused(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(RefusedError) as caught:
        read(*pieces, limit=5)
    assert caught.value.status == 413


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_of_any_size_are_unpacked(size: int, encoding: str) -> None:
    data = np.random.default_rng(0).integers(0, 4, size, np.uint8).tobytes()
    packed = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    assert bytes(read(packed, content_encoding=encoding)) == data


def test_the_members_of_a_gzip_body_are_put_together() -> None:
    assert bytes(read(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b"), content_encoding="gzip")) == b"ab"


def test_a_bomb_takes_no_more_memory_than_is_allowed() -> None:
    bomb = gzip.compress(bytes(200 * MIB), 1)
    tracemalloc.start()
    with pytest.raises(RefusedError, match="unpacked"):
        read(bomb, content_encoding="gzip", limit=64 * MIB, inflated=8 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MIB
