"""Whom `grpcs://` trusts, and who it says it is: the files and rules of `Network`, as gRPC takes them."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

from aiaas_grpc.forking import grpc
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport.tls import context

__all__ = ["credentials"]


def credentials(network: Network) -> Any:
    """The credentials of a channel.

    Raises:
        ConfigError: a file can't be read, or doesn't hold what it should.
    """
    context_of_files = context(network)  # says which file is wrong, and why
    chain = _read(network.certificate)
    key = _read(network.key) if network.key is not None else chain
    return grpc.ssl_channel_credentials(_authorities(context_of_files), key, chain)


def _authorities(made: ssl.SSLContext) -> bytes | None:
    """The certificates that the context trusts, as PEM; None for gRPC's own list, where there are none."""
    found = made.get_ca_certs(binary_form=True)
    if found:
        return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode()
    folder = os.environ.get("SSL_CERT_DIR") or ssl.get_default_verify_paths().capath
    return _of_folder(Path(folder)) if folder else None


def _of_folder(folder: Path) -> bytes | None:
    """A folder's certificates: OpenSSL looks them up there one by one, gRPC wants all."""
    texts = {path.read_bytes() for path in sorted(folder.glob("*.0")) if path.is_file()}
    return b"\n".join(sorted(texts)) or None


def _read(path: Any) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
