"""Whom HTTPS trusts: `Network.ca`, else `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system, else httpx's list."""

from __future__ import annotations

import os
import ssl
import sys
from functools import lru_cache
from typing import NamedTuple

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import PLAIN, Network

__all__ = ["context"]

Stamp = tuple[int, int, int]


class _Files(NamedTuple):
    """The files that a context is made of."""

    ca: str | None
    folder: str | None
    certificate: str | None
    key: str | None


def context(network: Network = PLAIN) -> ssl.SSLContext:
    """Made once, since reading the certificates takes tens of milliseconds; again when a file has changed.

    Raises:
        ConfigError: a file can't be read, or doesn't hold what it should.
    """
    ca, folder, source = network.ca, None, "network.ca"
    if ca is None:
        ca, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
        source = "SSL_CERT_FILE" if ca else "SSL_CERT_DIR"
    files = _Files(ca, folder, network.certificate, network.key)  # type: ignore[arg-type]  # the record made them text
    return _made(files, tuple(map(_stamp, files)), source, network.http2)


@lru_cache(64)
def _made(files: _Files, stamps: tuple[Stamp | None, ...], source: str, http2: bool) -> ssl.SSLContext:
    """Whether HTTP/2 is offered stands in the context; one for both would be changed under the other's hands."""
    made = _trusting(files.ca, files.folder, source)
    made.set_alpn_protocols(["http/1.1", "h2"] if http2 else ["http/1.1"])
    if files.certificate is not None:
        _identify(made, files.certificate, files.key)
    return made


def _trusting(ca: str | None, folder: str | None, source: str) -> ssl.SSLContext:
    if ca is None and folder is None:
        return ssl.create_default_context() if _system_has_any() else _listed()
    if ca is not None:
        _check_readable(source, ca)
    try:
        return ssl.create_default_context(cafile=ca, capath=folder)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"{source}, {ca or folder}, holds no PEM certificates", hint="Mend it, or unset it") from None


def _identify(made: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """OpenSSL would ask the terminal for a passphrase, so one is given, which is wrong."""
    _check_readable("network.certificate", certificate)
    if key is not None:
        _check_readable("network.key", key)
    try:
        made.load_cert_chain(certificate, key, password="-")
    except (OSError, ssl.SSLError) as error:
        apart = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
        problem = "the key is another certificate's" if apart else "no PEM certificate with a key without passphrase"
        files = certificate if key is None else f"{certificate} and {key}"
        raise ConfigError(f"network.certificate can't be used: {problem} in {files}") from None


def _check_readable(source: str, file: str) -> None:
    try:
        with open(file, "rb"):
            return
    except OSError as error:
        raise ConfigError(f"{source}, {file}, can't be read: {error.strerror}", hint="Mend it, or unset it") from None


def _stamp(file: str | None) -> Stamp | None:
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _system_has_any() -> bool:
    if sys.platform == "win32":
        return True
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return True
    try:
        return paths.capath is not None and bool(os.listdir(paths.capath))
    except OSError:
        return False


def _listed() -> ssl.SSLContext:
    from aiaas_sdk.transport.borrowed import listed_context

    return listed_context()
