"""Who vouches for a bundle: Ed25519 (RFC 8032) over the bytes of its manifest, and so over all digests."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiaas_sdk import disk
from aiaas_sdk.errors import BackendNotInstalledError, ConfigError, IntegrityError

__all__ = ["SigningKey", "Trust", "home", "own_key", "signer"]

PREFIX = "ed25519:"


def home() -> Path:
    """The user's folder of this package: AIAAS_HOME, else aiaas under the user's configuration folder."""
    if path := os.environ.get("AIAAS_HOME", "").strip():
        return Path(path)
    base = os.environ.get("XDG_CONFIG_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".config") / "aiaas"


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise BackendNotInstalledError(
            "signing needs the package cryptography", hint='Install it: pip install "aiaas-sdk[sign]"'
        ) from None
    return ed25519


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; its text and repr never show."""

    _secret: bytes

    @property
    def public(self) -> str:
        """The public key as text: "ed25519:" and base64."""
        return PREFIX + base64.b64encode(self._key().public_key().public_bytes_raw()).decode()

    def sign(self, manifest: bytes) -> bytes:
        """The contents of model.sig."""
        signature = base64.b64encode(self._key().sign(manifest)).decode()
        return json.dumps({"key": self.public, "signature": signature}).encode()

    def _key(self) -> Any:
        return _ed25519().Ed25519PrivateKey.from_private_bytes(self._secret)

    def __repr__(self) -> str:
        return "SigningKey(***)"


def own_key() -> SigningKey:
    """The user's key, made at first use: 32 random bytes in `signing.key`, readable by the user alone."""
    path = home() / "signing.key"
    if not path.exists():
        _make(path)
    secret = path.read_bytes()
    if len(secret) != 32:
        raise ConfigError(f"{path} is no signing key", hint="Move it away; the next save makes a new one")
    return SigningKey(secret)


def _make(path: Path) -> None:
    """Written aside and linked into place, so that of two processes one key wins and is whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        disk.new_file(aside, os.urandom(32), mode=0o600)
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        aside.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Trust:
    """The public keys whose programs may run."""

    keys: frozenset[str]

    @classmethod
    def of(cls, verify: bool | Iterable[str | bytes] | None = True) -> Trust:
        """`verify` of `load`: True is the user's own key, a sequence is keys besides it, False is nobody."""
        if verify is False:
            return cls(frozenset())
        own = {own_key().public} if (home() / "signing.key").exists() else set()
        if verify is True or verify is None:
            return cls(frozenset(own))
        if isinstance(verify, str | bytes):
            raise ConfigError("verify is one key's text", hint="Give a list: verify=[KEY]")
        return cls(frozenset({*own, *(key.decode() if isinstance(key, bytes) else key for key in verify)}))


def signer(manifest: bytes, signature: bytes, where: str) -> str:
    """The public key that signed. IntegrityError where the signature isn't of these bytes."""
    try:
        document = json.loads(signature)
        key, text = document["key"], document["signature"]
        public = base64.b64decode(key.removeprefix(PREFIX), validate=True)
        if not key.startswith(PREFIX):
            raise ValueError("unknown kind of key")
        _verify(public, base64.b64decode(text, validate=True), manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise IntegrityError(f"{where}: the signature doesn't match the manifest") from None
    return str(key)


def _verify(public: bytes, signature: bytes, manifest: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(public).verify(signature, manifest)
    except InvalidSignature:
        raise ValueError("no match") from None
