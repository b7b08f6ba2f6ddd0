"""HTTPS: the server's certificate, read again when it has been renewed."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.serving import Serving

__all__ = ["HANDSHAKE_SECONDS", "Certificate", "Door", "certificate_of"]

logger = logging.getLogger("aiaas_sdk.server")

_NO_ROOM = 0.1  # seconds until the next try where a connection couldn't be taken in
_FEW = 16  # handshakes that may be under way in any case: an idle connection goes when one is over
HANDSHAKE_SECONDS = 8.0
"""For a handshake; who says nothing is cut off, as before a request's head."""


class Certificate:
    """A certificate with its chain, and its key, in PEM files. TLS 1.2 is the oldest that is spoken.

    Attributes:
        context: for the connections; those that begin after a renewal have the new certificate.
        pem: the key and the certificate, for servers of other protocols.

    Raises:
        ConfigError: one of the files can't be read, isn't what it should be, or they don't belong together.
    """

    def __init__(self, cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        self._files = (Path(cert), Path(key))
        self._state = self._look()
        self.context = _context(*self._files)
        self.pem = self._contents()

    def _contents(self) -> tuple[bytes, bytes]:
        cert, key = self._files
        return key.read_bytes(), cert.read_bytes()

    def refresh(self) -> bool:
        """Read it again if it has changed, and say whether. One that is no good leaves the old one; the log says so."""
        state = self._look()
        if state == self._state:
            return False
        self._state = state
        try:
            _context(*self._files)  # apart: a context that fails half-way has the new certificate and the old key
            self.context.load_cert_chain(*self._files)
            self.pem = self._contents()
        except (ConfigError, OSError) as error:
            logger.error("the TLS certificate stays as it was: %s", error)
            return False
        logger.info("the TLS certificate was read again from %s", self._files[0])
        return True

    def _look(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_state(path) for path in self._files)


class Door:
    """Takes in the connections of a listening socket, as asyncio's servers do for plain ones.

    With TLS those would leave each handshake a minute, and couldn't end the ones that are under way.

    Args:
        make: the protocol of a connection.
        room: how many handshakes may be under way now; at more the oldest is ended. Whoever opens connections and says
            nothing would otherwise take all of the process's files, before anybody counts connections.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        room: Callable[[], int],
    ) -> None:
        listener.setblocking(False)
        self._context, self._make, self._room = context, make, room
        self._shaking: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._accepting = asyncio.ensure_future(self._accept(listener))

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                stream, _ = await loop.sock_accept(listener)
            except OSError:  # no file descriptor is left: somebody will go
                await asyncio.sleep(_NO_ROOM)
                continue
            task = asyncio.ensure_future(self._shake(stream))
            self._shaking[task] = None
            task.add_done_callback(self._shaking.pop)
            await self._make_room()

    async def _make_room(self) -> None:
        while len(self._shaking) > max(_FEW, self._room()):
            oldest = next(iter(self._shaking))
            oldest.cancel()
            await asyncio.wait([oldest])  # its file is free then
            await asyncio.sleep(0)

    async def _shake(self, stream: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._make, stream, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # who speaks no TLS, or waits too long
            logger.debug("a TLS handshake failed: %s", error)

    def close(self) -> None:
        """Take in no other."""
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        """End the handshakes that are still under way."""
        for task in self._shaking:
            task.cancel()
        await asyncio.gather(self._accepting, *self._shaking, return_exceptions=True)


def certificate_of(serving: Serving) -> Certificate | None:
    """The certificate that a server's options name; None for plain HTTP."""
    if serving.tls_cert is None or serving.tls_key is None:
        return None
    return Certificate(serving.tls_cert, serving.tls_key)


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _check(cert, "tls_cert", "CERTIFICATE")
    _check(key, "tls_key", "PRIVATE KEY")
    try:
        # asked for a passphrase, OpenSSL would stop and read the terminal
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except _LockedError:
        raise ConfigError(
            f"tls_key {key} is locked with a passphrase", hint="Unlock it: openssl pkey -in KEY -out KEY.open"
        ) from None
    except (ssl.SSLError, OSError) as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise ConfigError(f"the key in tls_key {key} is another certificate's than {cert}") from None
        raise ConfigError(f"tls_cert {cert} with tls_key {key} can't be used: {error.strerror or error}") from None
    return context


class _LockedError(Exception):
    pass


def _no_passphrase() -> str:
    raise _LockedError


def _check(path: Path, option: str, kind: str) -> None:
    try:
        held = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path} can't be read: {error.strerror}") from None
    if f"{kind}-----".encode() not in held:
        raise ConfigError(f"{option} {path} holds no {kind.lower()} in PEM form")


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # the last tells of chmod and chown: the file may have been written first and opened to the server's user then
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
