"""JSON Web Tokens (RFC 7519), checked with PyJWT as RFC 8725 wants it.

Only algorithms with a public key are taken: with a shared secret (HS256) whoever can check tokens could also make
them, and a public key could be passed off as one. `none` is no algorithm.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import BackendNotInstalledError, ConfigError
from aiaas_sdk.server.allowances import Limits
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.keysets import Source, source_of
from aiaas_sdk.server.permissions import Caller

__all__ = ["Tokens"]

logger = logging.getLogger("aiaas_sdk.server")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those that may be allowed; where none is named, RS256, ES256 and EdDSA are."""
_USUAL = ("RS256", "ES256", "EdDSA")
_OPTIONS = ("issuer", "audience", "key", "jwks", "algorithms", "leeway", *Limits.names())
_REQUIRED = ("iss", "aud", "exp", "sub")
_KEYS = 64  # of a set: each may be tried
_SUBJECT = 256  # characters


class Tokens:
    """How tokens are checked.

    Args:
        options: `issuer` and `audience` (a text, or a list of them), which a token must name; `key` (the public key
            as PEM, or a file of it) or `jwks` (a file, or the https URL of the issuer's key set); `algorithms` that
            are allowed; `leeway` in seconds for clocks that differ (30); and the limits of each subject, by the names
            that they have for keys.

    A token must have `iss`, `aud`, `exp` and `sub` (256 printable characters at most), and may have `nbf`; `models` (a
    list of names or patterns, or text with blanks between them; without it, all models), `management`, `training` and
    `metrics` (true) say what it allows.

    Raises:
        ConfigError: an option is missing, unknown or impossible. BackendNotInstalledError: PyJWT isn't there.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        if unknown := next((name for name in options if name not in _OPTIONS), None):
            raise ConfigError(f"jwt has no option {unknown!r}", hint=f"It has {', '.join(_OPTIONS)}")
        self._jwt = _library()
        self._issuer, self._audience = _texts(options, "issuer"), _texts(options, "audience")
        self._algorithms = _algorithms(options.get("algorithms", _USUAL))
        self._leeway = options.get("leeway", 30)
        if type(self._leeway) not in (int, float) or not 0 <= self._leeway <= 300:
            raise ConfigError(f"leeway of jwt is {self._leeway!r}", hint="Give seconds, from 0 to 300")
        self._limits = Limits.among(options)
        self._source, self._is_set = _source(options, lambda content: bool(self._understood(content)))
        self._read: bytes | None = None
        self._keys: list[tuple[str | None, str | None, Any]] = []
        self._check()

    async def caller(self, text: str) -> Caller | None:
        """Whose token this is; None where it isn't good.

        Raises:
            RefusedError: 503, the issuer's keys can't be had now.
        """
        try:
            header = self._jwt.get_unverified_header(text)
        except self._jwt.InvalidTokenError:
            return None
        if header.get("alg") not in self._algorithms:
            return None
        found = await self._candidates(header, newer=False) or await self._candidates(header, newer=True)
        for key in found:
            if (claims := self._verified(text, key)) is not None:
                return self._allowed(claims)
        return None

    async def _candidates(self, header: Mapping[str, Any], *, newer: bool) -> list[Any]:
        """The keys that this token may be signed with: those that it names, or all where it names none."""
        content = await self._source.read(newer=newer)
        if content is None:
            raise RefusedError(503, "tokens can't be checked now", retry_after=5.0, unread=True)
        if content is not self._read:
            self._read, self._keys = content, self._understood(content)
        wanted = header.get("kid")
        return [
            key
            for kid, algorithm, key in self._keys
            if (wanted is None or kid is None or kid == wanted) and algorithm in (None, header["alg"])
        ]

    def _verified(self, text: str, key: Any) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = self._jwt.decode(
                text,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": list(_REQUIRED)},
            )
            return claims
        except (self._jwt.PyJWTError, ValueError, TypeError):  # a key of another kind than the token's algorithm
            return None

    def _allowed(self, claims: Mapping[str, Any]) -> Caller | None:
        subject, models = claims["sub"], claims.get("models")
        if isinstance(models, str):
            models = models.split()
        if models is not None and not (isinstance(models, list) and all(isinstance(one, str) for one in models)):
            return None
        if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT or not subject.isprintable():
            return None
        # a subject is one issuer's (RFC 7519 4.1.2): another's of the same name is somebody else
        whose = subject if len(self._issuer) == 1 else f"{claims['iss']} {subject}"
        return Caller(
            f"jwt:{whose}",
            None if models is None else tuple(models),
            management=claims.get("management") is True,
            training=claims.get("training") is True,
            metrics=claims.get("metrics") is True,
            limits=self._limits,
        )

    # ------------------------------------------------------------ keys
    def _understood(self, content: bytes) -> list[tuple[str | None, str | None, Any]]:
        """Id, algorithm and key of each; nothing where it is no key."""
        if not self._is_set:
            key = self._pem(content)
            return [] if key is None else [(None, None, key)]
        try:
            given = json.loads(content)["keys"][:_KEYS]
            return [made for entry in given if (made := self._key(entry)) is not None]
        except (ValueError, KeyError, TypeError):
            return []

    def _key(self, entry: Any) -> tuple[str | None, str | None, Any] | None:
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") == "enc":
            return None
        try:
            key = self._jwt.PyJWK(entry).key
            return None if hasattr(key, "private_bytes") else (entry.get("kid"), entry.get("alg"), key)
        except (self._jwt.PyJWTError, ValueError, TypeError):
            return None

    def _pem(self, content: bytes) -> Any:
        """The key of a PEM text; None where it is none for the allowed algorithms, or a private one."""
        for algorithm in self._algorithms:
            try:
                key = self._jwt.get_algorithm_by_name(algorithm).prepare_key(content)
            except (self._jwt.PyJWTError, ValueError, TypeError):
                continue
            return None if hasattr(key, "private_bytes") else key
        return None

    def _check(self) -> None:
        """A text or a file must hold a key now; an issuer may come later."""
        if (content := self._source.content) is None or self._understood(content):
            return
        if self._is_set:
            raise ConfigError("jwks holds no public key", hint='A set looks like {"keys": [{"kty": "RSA", ...}]}')
        raise ConfigError("key of jwt is no public key (PEM) of the allowed algorithms", hint="Look at algorithms, too")


def _library() -> Any:
    try:
        import jwt
    except ImportError:
        raise BackendNotInstalledError(
            "checking tokens needs the package PyJWT", hint='Install it: pip install "aiaas-sdk[jwt]"'
        ) from None
    return jwt


def _texts(options: Mapping[str, Any], name: str) -> list[str]:
    value = options.get(name)
    found = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    if not found or not all(isinstance(one, str) and one for one in found):
        raise ConfigError(f"jwt needs {name}", hint=f"Give the text that good tokens have as {name}, or a list of them")
    return found


def _algorithms(given: Any) -> list[str]:
    found = [given] if isinstance(given, str) else list(given)
    if not found or not set(found) <= set(ALGORITHMS):
        other = next((one for one in found if one not in ALGORITHMS), "")
        raise ConfigError(f"jwt can't use the algorithm {other!r}", hint=f"Name some of {', '.join(ALGORITHMS)}")
    return found


def _source(options: Mapping[str, Any], holds_keys: Callable[[bytes], bool]) -> tuple[Source, bool]:
    """Where the keys come from, and whether it is a set of them."""
    given = [name for name in ("key", "jwks") if options.get(name) is not None]
    if len(given) != 1:
        raise ConfigError("jwt needs key or jwks", hint="Give one of them: a public key (PEM), or the issuer's key set")
    told = options[given[0]]
    if not isinstance(told, str | os.PathLike):
        raise ConfigError(f"{given[0]} of jwt is {kind_of(told)}", hint="Give a text, a file or a URL")
    if given[0] == "key" and "://" in os.fspath(told):
        raise ConfigError("key of jwt is a URL", hint="The URL of a key set is jwks")
    return source_of(told, holds_keys), given[0] == "jwks"
