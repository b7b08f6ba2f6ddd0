"""Whom HTTPS trusts: `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system, else httpx's list."""

from __future__ import annotations

import os
import ssl
import sys
from functools import lru_cache

from aiaas_sdk.errors import ConfigError

__all__ = ["context"]


def context() -> ssl.SSLContext:
    """Made once, since reading the certificates takes tens of milliseconds; again when the file has changed.

    Raises:
        ConfigError: SSL_CERT_FILE names no file with certificates.
    """
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    return _made(file, folder, _stamp(file))


@lru_cache(4)
def _made(file: str | None, folder: str | None, stamp: tuple[int, int] | None) -> ssl.SSLContext:
    made = _trusting(file, folder)
    made.set_alpn_protocols(["http/1.1"])
    return made


def _trusting(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file is None and folder is None:
        return ssl.create_default_context() if _system_has_any() else _listed()
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ssl.SSLError):
        name = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        raise ConfigError(f"the variable {name} names no readable certificates", hint="Unset it, or mend it") from None


def _stamp(file: str | None) -> tuple[int, int] | None:
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


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
    from aiaas_sdk.transport.proxied import listed_context

    return listed_context()
