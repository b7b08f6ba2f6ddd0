"""Where the public keys come from that tokens are checked with: a text, a file, or an issuer's URL (JWKS, RFC 7517).

Only the operator says where. What a token's own header says of places (`jku`, `x5u`, `jwk`) is read by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.fetching import fetch_async
from aiaas_sdk.records.fetching import Fetching

__all__ = ["Source", "source_of"]

logger = logging.getLogger("aiaas_sdk.server")

FRESH = 300.0
"""Seconds after which an issuer is asked again, while its keys go on being used."""
STALE = 3600.0
"""Seconds for which they are used while he doesn't answer."""
PAUSE = 10.0
"""Seconds between two questions to an issuer, however many tokens name a key that isn't known."""
_RULES = Fetching(
    schemes=("https", "http"),
    networks=("0.0.0.0/0", "::/0"),  # the operator may well mean a host of his own
    media_types=("*",),
    size=1024**2,
    timeout=5.0,
    redirects=0,
)
_LOOK = 1.0  # seconds between two looks at a file
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Source(Protocol):
    """Such a place.

    Attributes:
        content: what it gave last; None where it gave nothing yet.
    """

    content: bytes | None

    async def read(self, *, newer: bool = False) -> bytes | None:
        """What is there. None where it can't be had now.

        Args:
            newer: what was given last lacks a key; look again, if that wasn't done a moment ago.
        """


def source_of(told: str | os.PathLike[str], holds_keys: Callable[[bytes], bool]) -> Source:
    """The source that an option names: a PEM text, an https URL, or a file.

    Args:
        told: the option.
        holds_keys: whether there are keys in some bytes. What brings none changes nothing: an issuer who sends a page
            of excuses is as good as away, and a file may be half written.

    Raises:
        ConfigError: the file can't be read, or the URL can't be asked.
    """
    text = os.fspath(told)
    if "-----BEGIN" in text:
        if "PRIVATE KEY" in text:
            raise ConfigError("the key is a private one", hint="Tokens are checked with the public key alone")
        return _Fixed(text.encode())
    if "://" in text:
        return _Url(text, holds_keys)
    return _File(Path(text), holds_keys)


class _Fixed:
    def __init__(self, content: bytes) -> None:
        self.content: bytes | None = content

    async def read(self, *, newer: bool = False) -> bytes | None:
        return self.content


class _File:
    """It is read again when it has changed."""

    def __init__(self, path: Path, holds_keys: Callable[[bytes], bool]) -> None:
        self._path, self._holds_keys = path, holds_keys
        self._looked = time.monotonic()
        try:
            self._state = path.stat().st_mtime_ns
            self.content: bytes | None = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the keys of tokens in {path} can't be read: {error.strerror}") from None

    async def read(self, *, newer: bool = False) -> bytes | None:
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            with contextlib.suppress(OSError):  # gone: the keys stay as they were
                state = self._path.stat().st_mtime_ns
                if state != self._state:
                    self._state, found = state, self._path.read_bytes()
                    if self._holds_keys(found):
                        self.content = found
                    else:
                        logger.error("there is no public key in %s; those of tokens stay as they were", self._path)
        return self.content


class _Url:
    """It is asked by one task at a time, and keeps nobody waiting who can be served with what is there."""

    def __init__(self, url: str, holds_keys: Callable[[bytes], bool]) -> None:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
        if scheme != "https" and not (scheme == "http" and host in _LOOPBACK):
            raise ConfigError("jwks isn't an https URL", hint="Who stands on the way could give keys of his own")
        _RULES.check(url)
        self._url, self._holds_keys = url, holds_keys
        self.content: bytes | None = None
        self._fetched = self._asked = -STALE
        self._task: asyncio.Task[None] | None = None

    async def read(self, *, newer: bool = False) -> bytes | None:
        now = time.monotonic()
        if self.content is not None and now - self._fetched > STALE:
            self.content = None
        wanted = newer or self.content is None or now - self._fetched > FRESH
        if wanted and self._task is None and now - self._asked > PAUSE:
            self._asked = now
            self._task = asyncio.ensure_future(self._ask())
        if self._task is not None and (newer or self.content is None):
            await asyncio.shield(self._task)
        return self.content

    async def _ask(self) -> None:
        try:
            found = await fetch_async(self._url, _RULES)
            if self._holds_keys(found.data):
                self.content, self._fetched = found.data, time.monotonic()
            else:
                logger.error("the issuer's answer holds no public key; those that are there are used for an hour")
        except AiaasError as error:
            logger.error("the issuer's keys can't be fetched: %s", error)
        finally:
            self._task = None
