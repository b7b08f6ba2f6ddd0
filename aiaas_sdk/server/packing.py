"""Whole answers, compressed for whoever asks for that (RFC 9110 12.5.3).

The header with the length of the JSON before the tensors (`Inference-Header-Content-Length`) counts bytes before
compression, as Triton does it. Event streams aren't compressed: each piece should arrive when it is made.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import Send

from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.oip import Message

__all__ = ["coding", "respond"]

LEAST = 1024
"""Bytes from which it is worth while; one packet holds more."""
_SMALL = 64 * 1024  # bytes that may be compressed in the event loop
_STEP = 1024**2  # bytes that are compressed at once
_LEVEL = 1  # floats hardly shrink with more, and it takes three times as long
_WINDOWS = {"gzip": 31, "deflate": 15}  # deflate is zlib's format (RFC 9110 8.4.1.2)
_CODING = re.compile(r"([\w*-]+)(?:\s*;\s*q=([01](?:\.\d{0,3})?))?", re.ASCII)


def coding(accept: str | None) -> str | None:
    """The coding of an answer for a request's Accept-Encoding: "gzip", "deflate", or None for identity.

    `*` alone is content with identity, which is the cheapest; so is whoever says nothing.
    """
    if not accept or accept.strip().lower() == "identity":
        return None
    asked = [found for part in accept.lower().split(",") if (found := _CODING.fullmatch(part.strip()))]
    named = {found[1].removeprefix("x-"): float(found[2] or 1) for found in asked}
    others = named.get("*", 0.0)
    weights = {name: named.get(name, others) for name in _WINDOWS}
    weights["identity"] = named.get("identity", named.get("*", 0.0001))
    best = max(weights, key=lambda name: (weights[name], name in named and name != "identity", name == "identity"))
    return None if best == "identity" or not weights[best] else best


async def respond(send: Send, message: Message, accept: str | None) -> None:
    """Send an answer of status 200. Its parts go out as they are, tensors from their own memory, unless compressed.

    Args:
        accept: the request's Accept-Encoding.
    """
    parts, headers = message.body, message.headers
    size = sum(map(len, parts))
    if accept is not None and size >= LEAST:
        headers = {**headers, "vary": "accept-encoding"}
        if (chosen := coding(accept)) is not None:
            parts = await _packed(parts, chosen, size)
            headers["content-encoding"], size = chosen, sum(map(len, parts))
    if size <= _SMALL and len(parts) > 1:  # joined is cheaper than sent one by one
        parts = (b"".join(parts),)
    lines = _lines(tuple(headers.items()), size)
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    last = len(parts) - 1
    for place, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": place < last})


@lru_cache(256)
def _lines(headers: tuple[tuple[str, str], ...], size: int) -> tuple[tuple[bytes, bytes], ...]:
    """As ASGI wants them; most answers of a model have the same."""
    return (*((name.encode(), value.encode()) for name, value in headers), (b"content-length", b"%d" % size))


async def _packed(parts: Sequence[Buffer], chosen: str, size: int) -> tuple[Buffer, ...]:
    """In a thread where that takes long: zlib lets the others run meanwhile."""
    if size <= _SMALL:
        return _compressed(parts, chosen)
    return await asyncio.to_thread(_compressed, parts, chosen)


def _compressed(parts: Sequence[Buffer], chosen: str) -> tuple[Buffer, ...]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[chosen])
    pieces: list[Buffer] = []
    for part in parts:
        view = memoryview(part)
        pieces += (packer.compress(view[start : start + _STEP]) for start in range(0, len(view), _STEP))
    pieces.append(packer.flush())
    return tuple(piece for piece in pieces if piece)
