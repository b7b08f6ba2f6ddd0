"""A request's body: bounded, in one piece of memory, its tensors aligned."""

from __future__ import annotations

import zlib

import numpy as np
from starlette.requests import ClientDisconnect, Request

from aiaas_sdk.errors import InputError, PayloadTooLargeError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.oip import HEADER_LENGTH

__all__ = ["MAX_BODY", "read"]

MAX_BODY = 1 << 30
"""Bytes of a request at most, also after it was unpacked."""
ALIGNMENT = 64
WINDOWS = {"gzip": 31, "deflate": 15}
"""zlib's window bits for the content encodings that are taken."""


async def read(request: Request, limit: int = MAX_BODY) -> Buffer:
    """The whole body.

    Raises:
        PayloadTooLargeError: it is, or says that it is, larger than `limit`; what is left isn't read.
        InputError: it can't be unpacked, or isn't as long as it says.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    if encoding in ("identity", "") and length.isdigit():
        return await _fill(request, int(length))
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return body if encoding in ("identity", "") else _unpacked(body, encoding, limit)


async def _fill(request: Request, length: int) -> Buffer:
    """Into memory placed so that what lies behind the JSON head starts at a multiple of 64."""
    head = request.headers.get(HEADER_LENGTH, "0").strip()
    memory = np.empty(length + ALIGNMENT, np.uint8)
    start = -(memory.ctypes.data + (int(head) if head.isdigit() and len(head) < 12 else 0)) % ALIGNMENT
    view, at = memory[start : start + length].data, 0
    async for piece in request.stream():
        if at + len(piece) > length:
            raise InputError("the body is longer than its content-length")
        view[at : at + len(piece)] = piece
        at += len(piece)
    if at != length:
        raise ClientDisconnect
    return view


def _unpacked(body: bytearray, encoding: str, limit: int) -> bytes:
    if encoding not in WINDOWS:
        raise InputError(f"the content encoding {encoding[:20]!r} isn't taken", hint="Send gzip, deflate or identity")
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    try:
        data = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise InputError(f"the body isn't {encoding}") from None
    if len(data) > limit:
        raise _too_large(limit)
    if not unpacker.eof:
        raise InputError(f"the body's {encoding} data stops too early")
    return data


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is larger than {limit} bytes", status=413)
