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
from aiaas_sdk.records.trusted import Trusted

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


def _own_public() -> str | None:
    """The user's public key; None where nothing was saved yet."""
    return own_key().public if (home() / "signing.key").exists() else None


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
    """Whose signature counts.

    Attributes:
        keys: the public keys whose programs may run.
        asked: one of them must have signed, whatever the bundle holds.
    """

    keys: frozenset[str]
    asked: bool = False

    @classmethod
    def of(cls, verify: bool | Iterable[str | bytes] | None = True) -> Trust:
        """`verify` of `load`.

        True is the user's own key, to which [trust] in the settings adds others; False is nobody. Keys that somebody
        names come to those, and ask for a signature by one of them all.

        Raises:
            ConfigError: it is one text, or an empty list, or something in it is no key.
        """
        if verify is False:
            return cls(frozenset())
        own = _own_public()
        trusted = frozenset() if own is None else frozenset((own,))
        if verify is True or verify is None:
            return cls(trusted)
        if isinstance(verify, Trusted):
            return cls(trusted | frozenset(verify))
        if isinstance(verify, str | bytes):
            raise ConfigError("verify is one key's text", hint="Give a list: verify=[KEY]")
        keys = frozenset(_key_text(key) for key in verify)
        if not keys:
            raise ConfigError("verify names no key, so no bundle could be loaded", hint="Name one, or leave verify out")
        return cls(trusted | keys, asked=True)

    def includes(self, key: str | None) -> bool:
        """Whether it is one of these; None, where nobody signed, never is."""
        return key is not None and key in self.keys


def _key_text(key: object) -> str:
    text = key.decode("ascii", "replace") if isinstance(key, bytes) else key
    if not isinstance(text, str) or not text.startswith(PREFIX):  # None, say, from a variable that isn't set
        raise ConfigError("verify names something that is no public key", hint=f'A key is "{PREFIX}" and base64')
    return text


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
    ed25519 = _ed25519()  # first: it says what to install
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, manifest)
    except InvalidSignature:
        raise ValueError("no match") from None
