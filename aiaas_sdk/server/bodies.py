"""A request's body: one buffer, never larger than allowed, unpacked where it was packed."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Any

from aiaas_sdk.flow import Buffer
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import Head
from aiaas_sdk.server.visits import Visit, current

__all__ = ["MAX_BODY", "MAX_INFLATED", "LeftError", "aligned", "drain", "read_body"]

MAX_BODY = 1024**3
"""Bytes of a body that are taken."""
MAX_INFLATED = 64 * 1024**2
"""Bytes that a compressed body may become: a megabyte of gzip can hold a gigabyte. Triton's limit for any body."""
_ALIGNMENT = 64
_MEMBERS = 16  # of a gzip body
_STEP = 64 * 1024  # bytes that are unpacked at once
_DRAINED = 2.0  # seconds, and
_DRAINED_BYTES = 16 * 1024**2  # bytes, for which the rest of a refused body is read and thrown away


class LeftError(Exception):
    """The client has gone: nobody is there to be answered."""


async def read_body(head: Head, receive: Any, *, limit: int, inflated: int = MAX_INFLATED) -> Buffer:
    """The whole body, unpacked; tensors behind a JSON of known length are put at a multiple of 64 in memory.

    Args:
        head: the request's.
        receive: ASGI's.
        limit: bytes that may arrive; inflated: bytes that a compressed body may be, and become.

    Raises:
        RefusedError: 413 too large, 415 an unknown encoding, 400 what can't be unpacked, 503 no memory left for bodies.
        LeftError: the client has gone.
    """
    encoding, length, allowed = head.encoding, head.length, limit
    if encoding:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise RefusedError(415, "the body's Content-Encoding is none of gzip, deflate and identity", unread=True)
        allowed = min(limit, inflated)
    if length is not None and not 0 <= length <= allowed:
        if length < 0:
            raise RefusedError(400, "the header Content-Length is no length", unread=True)
        raise _too_large(allowed)
    visit = current()
    body, more = await _taken(receive, visit)
    if more:
        body = await _whole(receive, visit, body, length, allowed, 0 if encoding else head.text)
    elif len(body) > allowed:
        raise _too_large(allowed)
    if visit is not None:
        visit.received = len(body)
    if not encoding or not len(body):
        return body
    unpacked = await asyncio.to_thread(_unpacked, body, encoding, allowed)
    if visit is not None:
        visit.take(len(unpacked))
    return unpacked


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, f"the body is larger than the {limit} bytes that this server takes", unread=True)


# ---------------------------------------------------------------- reading
async def _whole(receive: Any, visit: Visit | None, piece: Buffer, length: int | None, limit: int, text: int) -> Buffer:
    """A body that begins with this piece, and has more of them."""
    if length is None:
        return await _growing(receive, visit, piece, limit)
    buffer = aligned(length, text)
    filled, more = 0, True
    while True:
        end = filled + len(piece)
        if end > length:  # the server before us lets nothing through that is longer or shorter; another might
            raise RefusedError(400, "the body is longer than its Content-Length", unread=True)
        buffer[filled:end] = piece
        filled = end
        if not more:
            break
        piece, more = await _taken(receive, visit)
    if filled != length:
        raise RefusedError(400, "the body is shorter than its Content-Length", unread=True)
    return buffer


async def _growing(receive: Any, visit: Visit | None, piece: Buffer, limit: int) -> Buffer:
    """A body whose length nobody said; what was read of one that is too long stays below limit + one piece."""
    body, more = bytearray(piece), True
    while more and len(body) <= limit:
        piece, more = await _taken(receive, visit)
        body += piece
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _taken(receive: Any, visit: Visit | None) -> tuple[Buffer, bool]:
    """What comes next, and whether that isn't all. RefusedError where other requests have all the memory."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise LeftError
    piece = message.get("body", b"")
    if visit is not None:
        visit.take(len(piece))
    return piece, message.get("more_body", False)


def aligned(length: int, text: int) -> memoryview:
    """Memory for a body, laid so that what follows its first `text` bytes starts at a multiple of 64.

    It is untouched: what a claimed length takes of the machine is address space, until bytes come.
    """
    import numpy as np

    room = np.empty(length + _ALIGNMENT, np.uint8)
    start = -(room.__array_interface__["data"][0] + min(text, length)) % _ALIGNMENT
    return room.data[start : start + length]


async def drain(receive: Any) -> None:
    """Read and forget what still comes, for a while.

    A client that is still sending when the connection closes gets a reset, and may lose the answer that
    explains it.
    """
    taken = 0
    with contextlib.suppress(TimeoutError, LeftError):
        async with asyncio.timeout(_DRAINED):
            more = True
            while more and taken < _DRAINED_BYTES:
                piece, more = await _taken(receive, None)
                taken += len(piece)


# ---------------------------------------------------------------- unpacking
def _unpacked(body: Buffer, encoding: str, limit: int) -> Buffer:
    """gzip (RFC 1952, of some members) or deflate (RFC 9110 8.4.1.2: zlib; some send it bare)."""
    try:
        if encoding != "deflate":
            return _inflated(body, 31, limit)
        wrapped = len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0  # RFC 1950 2.2
        return _inflated(body, 15 if wrapped else -15, limit)
    except zlib.error:
        raise RefusedError(400, f"the body isn't what its Content-Encoding says: {encoding}") from None


def _inflated(body: Buffer, window: int, limit: int) -> bytearray:
    """In steps, both ways: zlib copies what it hasn't used yet, and what a bomb becomes is never held twice."""
    found, members = bytearray(), 1
    inflater = zlib.decompressobj(window)
    for start in range(0, len(body), _STEP):
        rest = bytes(body[start : start + _STEP])
        while rest:
            if inflater.eof:
                members += 1
                if window != 31 or members > _MEMBERS:
                    raise zlib.error("something follows it")
                inflater = zlib.decompressobj(window)
            _extend(found, inflater.decompress(rest, _STEP), limit)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    while not inflater.eof:
        if not (piece := inflater.decompress(b"", _STEP)):
            raise zlib.error("it ends early")
        _extend(found, piece, limit)
    return found


def _extend(found: bytearray, piece: bytes, limit: int) -> None:
    if len(found) + len(piece) > limit:
        raise RefusedError(413, f"the body becomes larger than {limit} bytes when it is unpacked")
    found += piece
