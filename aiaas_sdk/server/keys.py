"""API keys, and the file in which they are kept hashed.

::

    [keys.alice]
    sha256 = "9f86…"                      # of the key; the key itself stands nowhere
    created = 2026-11-28T21:00:00Z
    expires = 2027-11-28T21:00:00Z        # this and all that follow may be left out
    models = ["digits", "llm-*"]          # names or patterns; none of them: all models
    requests_per_minute = 600
    tokens_per_minute = 100000
    concurrency = 8
    queue_share = 0.25
    management = true
    training = true
    metrics = true

A key is 256 random bits, so one round of SHA-256 keeps it: slow hashes are for what people think up, and can be
guessed. (OWASP Password Storage Cheat Sheet: "hashing" of high-entropy secrets; GitHub and Stripe keep theirs so.)
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiaas_sdk import disk
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.allowances import Limits
from aiaas_sdk.server.permissions import Caller

__all__ = ["ApiKey", "KeyFile", "add_key", "keys_in", "made", "remove_key", "write_keys"]

logger = logging.getLogger("aiaas_sdk.server")

PREFIX = "aiaas_"
"""How a key begins: whoever looks for keys that got away (in a repository, a log) finds it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FLAGS = ("management", "training", "metrics")
_FACTS = ("sha256", "created", "expires", "models", *_FLAGS, *Limits.names())
_LOOK = 1.0  # seconds between two looks at the file
_HEAD = "# API keys, hashed. `aiaas keys` writes this file, and keeps no comments.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept.

    Attributes:
        digest: its SHA-256.
        created, expires: when; None for a key without an end.
        caller: whose it is, and what he may do.
    """

    digest: bytes = field(repr=False)
    created: datetime
    expires: datetime | None = None
    caller: Caller

    @property
    def name(self) -> str:
        return self.caller.name or ""

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


def made(
    name: str,
    *,
    expires: datetime | None = None,
    models: Sequence[str] | None = None,
    management: bool = False,
    training: bool = False,
    metrics: bool = False,
    limits: Limits | None = None,
) -> tuple[str, ApiKey]:
    """A new key: its text, which is nowhere else, and what is kept of it.

    Raises:
        ConfigError: the name, or one of the models, can't be.
    """
    text = PREFIX + secrets.token_urlsafe(32)
    caller = Caller(
        _checked(name),
        _patterns(models),
        management=management,
        training=training,
        metrics=metrics,
        limits=limits or Limits(),
    )
    created = datetime.now(UTC).replace(microsecond=0)
    return text, ApiKey(digest=_digest(text), created=created, expires=expires, caller=caller)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


# ---------------------------------------------------------------- the file
def keys_in(path: str | os.PathLike[str]) -> list[ApiKey]:
    """The keys of a file.

    Raises:
        ConfigError: it can't be read, or says something else than keys. No hash is repeated.
    """
    import tomllib

    path = Path(path)
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        hint = "`aiaas keys add NAME --file FILE` makes it"
        raise ConfigError(f"the API keys in {path} can't be read: {error.strerror}", hint=hint) from None
    except ValueError as error:
        what = re.sub(r"\s+", " ", str(error))[:100] if isinstance(error, tomllib.TOMLDecodeError) else "no UTF-8"
        raise ConfigError(f"{path} is no TOML: {what}", hint="`aiaas keys` writes such a file") from None
    tables = found.get("keys", {})
    if found.keys() - {"keys"} or not isinstance(tables, Mapping):
        raise ConfigError(f"{path} holds other things than [keys.NAME]", hint="Keep them in another file")
    keys = [_read(path, name, table) for name, table in tables.items()]
    if len({key.digest for key in keys}) < len(keys):
        raise ConfigError(f"two names in {path} have the same key", hint="Make each of them a key of its own")
    return keys


def _read(path: Path, name: str, table: Any) -> ApiKey:
    try:
        return _understood(_checked(name), table)
    except ConfigError as error:
        raise ConfigError(f"{path}, [keys.{name[:80]}]: {error.message}", hint=error.hint) from None


def _understood(name: str, table: Any) -> ApiKey:
    if not isinstance(table, Mapping):
        raise ConfigError("it is no table", hint="`aiaas keys add` writes one")
    if unknown := next((fact for fact in table if fact not in _FACTS), None):
        raise ConfigError(f"{unknown[:80]!r} is unknown", hint=f"Known are {', '.join(_FACTS)}")
    digest = table.get("sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ConfigError("sha256 isn't 64 digits of hexadecimal", hint="It is the SHA-256 of the key, not the key")
    for flag in _FLAGS:
        if not isinstance(table.get(flag, False), bool):
            raise ConfigError(f"{flag} is neither true nor false")
    return ApiKey(
        digest=bytes.fromhex(digest),
        created=_time(table, "created") or datetime.fromtimestamp(0, UTC),
        expires=_time(table, "expires"),
        caller=Caller(
            name,
            _patterns(table.get("models")),
            **{flag: table.get(flag, False) for flag in _FLAGS},
            limits=Limits.among(table),
        ),
    )


def _time(table: Mapping[str, Any], fact: str) -> datetime | None:
    value = table.get(fact)
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise ConfigError(f"{fact} is no time with a zone", hint="Write it as 2026-11-28T21:00:00Z")
    return value


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} can't be the name of a key", hint="Letters, digits and . _ @ -, 64 at most")
    return name


def _patterns(models: Any) -> tuple[str, ...] | None:
    if models is None:
        return None
    if isinstance(models, str) or not all(isinstance(one, str) and one.strip() for one in models):
        raise ConfigError("models is no list of names", hint='Write it as ["digits", "llm-*"]; leave it out for all')
    return tuple(models)


def write_keys(path: str | os.PathLike[str], keys: Iterable[ApiKey]) -> None:
    """Write the file, whole or not at all, for its owner alone (mode 0600).

    Raises:
        ConfigError: it can't be written.
    """
    text = _HEAD + "".join(map(_table, sorted(keys, key=lambda key: key.name)))
    path = Path(path).resolve()  # where it is a link, what it points to
    try:
        disk.replace(path, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"the API keys can't be written to {path}: {error.strerror}") from None


def add_key(path: str | os.PathLike[str], key: ApiKey) -> None:
    """Put a key into the file, which is made if need be.

    Raises:
        ConfigError: it has one of that name, or can't be read or written.
    """
    with _changing(path):
        kept = keys_in(path) if Path(path).exists() else []
        if any(other.name == key.name for other in kept):
            raise ConfigError(f"{path} has a key {key.name!r} already", hint="Choose another name, or remove that one")
        write_keys(path, [*kept, key])


def remove_key(path: str | os.PathLike[str], name: str) -> None:
    """Take a key out of the file.

    Raises:
        ConfigError: it has none of that name, or can't be read or written.
    """
    with _changing(path):
        kept = keys_in(path)
        left = [key for key in kept if key.name != name]
        if len(left) == len(kept):
            known = ", ".join(key.name for key in kept) or "none"
            raise ConfigError(f"{path} has no key {name!r}", hint=f"It has {known}")
        write_keys(path, left)


@contextlib.contextmanager
def _changing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Nobody else changes the file: who has read it before would write a removed key back.

    It is its folder that is locked, and nothing is left beside the file. Windows locks no folders.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        folder = os.open(Path(path).resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"the API keys can't be written to {path}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _table(key: ApiKey) -> str:
    caller, limits = key.caller, key.caller.limits
    facts: dict[str, Any] = {"sha256": key.digest.hex(), "created": key.created, "expires": key.expires}
    facts["models"] = None if caller.models is None else list(caller.models)
    facts |= {name: getattr(limits, name) for name in Limits.names() if getattr(limits, name) != getattr(_USUAL, name)}
    facts |= {flag: getattr(caller, flag) or None for flag in _FLAGS}
    lines = [f"{fact} = {_toml(value)}" for fact, value in facts.items() if value is not None]
    name = key.name if _BARE.fullmatch(key.name) else json.dumps(key.name)
    return "\n".join(["", f"[keys.{name}]", *lines, ""])


_USUAL = Limits()


def _toml(value: Any) -> str:
    # JSON's texts, numbers and lists are TOML's as well, but for DEL, and for surrogates when all is to be ASCII
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---------------------------------------------------------------- asking
class KeyFile:
    """The keys of a file, as it is now: it is read again when it has changed.

    A file that can't be understood any more changes nothing; the log says so.

    Raises:
        ConfigError: as `keys_in` says, or it holds no key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        # looked up by a keyed hash of the digest, whose time tells nobody how near a guess was
        self._blind = secrets.token_bytes(32)
        self._state, self._looked = _state(self._path), time.monotonic()
        self._named: set[str] = set()
        self._held = self._indexed(keys_in(self._path))
        if not self._held:
            raise ConfigError(f"{path} holds no key", hint=f"Make one: aiaas keys add NAME --file {path}")

    def caller(self, text: str) -> Caller | None:
        """Whose key this is; None where it is nobody's, or has expired. The time it takes is the same for all."""
        self._refresh()
        digest = _digest(text)
        found = self._held.get(self._blinded(digest), _NONE)
        if not hmac.compare_digest(found.digest, digest):
            return None
        if found.expired:
            if found.name not in self._named:
                self._named.add(found.name)
                logger.warning("the API key %s was used after it had expired", found.name)
            return None
        return found.caller

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._blind).digest()

    def _indexed(self, keys: Iterable[ApiKey]) -> dict[bytes, ApiKey]:
        return {self._blinded(key.digest): key for key in keys}

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        state = _state(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            self._held = self._indexed(keys_in(self._path))
        except ConfigError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("the API keys were read again: %d", len(self._held))


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # the last tells of chmod and chown: the file may have been written first and opened to the server's user then
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


_NONE = ApiKey(digest=bytes(32), created=datetime.fromtimestamp(0, UTC), caller=Caller(None))
