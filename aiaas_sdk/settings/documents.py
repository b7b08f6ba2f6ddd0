"""One `aiaas.toml`: read, and checked key by key."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.errors import AddressError, ConfigError
from aiaas_sdk.records.options import OPTION_NAMES
from aiaas_sdk.records.secret import Secret
from aiaas_sdk.settings.credentials import KEYS, credential, origin_of, sealed
from aiaas_sdk.settings.serving import Serve
from aiaas_sdk.settings.values import MisfitError, nearest, option, what

__all__ = ["Document", "Entry", "Tables", "load"]

MAX_BYTES = 1 << 20
_TABLES = ("models", "profiles", "defaults", "serve", "trust", "credentials")
_IN_CODE = frozenset(("architecture", "input", "output"))
_POSITION = re.compile(r"line \d+, column \d+")


@dataclass(frozen=True, slots=True)
class Entry:
    """A model by name: its address (several: a route), its own options, and the table that says so."""

    address: str | tuple[str, ...]
    options: Mapping[str, Any] = field(repr=False)
    source: str
    folder: Path | None
    """Where relative paths start; None: the working folder, as in an argument."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a file, or a profile in it, says of models. `options` are its defaults, `source` their table."""

    models: Mapping[str, Entry]
    options: Mapping[str, Any]
    source: str


@dataclass(frozen=True, slots=True)
class Document:
    """A checked file."""

    path: Path
    tables: Tables
    profiles: Mapping[str, Tables]
    serve: Serve
    trust: tuple[str, ...]
    credentials: Mapping[str, Secret]


def load(path: Path, environ: Mapping[str, str], *, users_own: bool) -> Document | None:
    """Read a file; None where there is none.

    Args:
        path: the file.
        environ: where `api_key_env` will look.
        users_own: it may name trusted keys and credentials.

    Raises:
        ConfigError: it can't be read, isn't TOML, or a key or value in it is wrong; file, table and key are named.
    """
    document, problem = _parsed(path)
    if problem:
        raise ConfigError(f"{path} {problem}", hint="Mend the file, or move it away")
    return None if document is None else _Checker(path, environ, users_own).document(document)


def _parsed(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The TOML, or what is wrong. Nothing is raised from here: the parser's error holds the whole text."""
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return None, f"has more than {MAX_BYTES} bytes"
        if data.startswith(b"\xef\xbb\xbf"):
            return None, "starts with a byte order mark (line 1); save it as UTF-8 without one"
        return sealed(tomllib.loads(data.decode()), path), ""
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        return None, f"can't be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError as error:
        return None, f"isn't UTF-8 (line {data[: error.start].count(10) + 1})"
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        return None, f"isn't valid TOML ({_position(str(error), data.count(10) + 1)})"


def _position(message: str, lines: int) -> str:
    """The place in the parser's message; the rest of it may repeat the text."""
    if found := _POSITION.search(message):
        return found[0]
    return f"line {lines}, the end" if "end of document" in message else "a number is too long"


class _Checker:
    """The checks of one file; each message begins with the file, the table and the key."""

    def __init__(self, path: Path, environ: Mapping[str, str], users_own: bool) -> None:
        self.path, self.environ, self.users_own = path, environ, users_own

    def fail(self, table: str, key: str, problem: str, hint: str | None = None) -> ConfigError:
        where = f"{self.path} [{table}]" if table else str(self.path)
        return ConfigError(f"{where} {key} {problem}" if key else f"{where} {problem}", hint=hint)

    def misfit(self, table: str, key: str, error: MisfitError) -> ConfigError:
        return self.fail(table, ".".join(filter(None, (key, error.key))), error.problem, error.hint)

    def table(self, value: Any, name: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.fail("", name, f"wants a table and has {what(value)}", f"Write [{name}]")
        return value

    def document(self, document: Mapping[str, Any]) -> Document:
        for key in document:
            if key not in _TABLES:
                raise self.fail("", key, "is no table of this file", nearest(key, _TABLES))
        profiles = self.table(document.get("profiles", {}), "profiles")
        return Document(
            self.path,
            self.tables(document, ""),
            {name: self.profile(name, profile) for name, profile in profiles.items()},
            self.serve(document),
            self.trust(document),
            self.credentials(document),
        )

    def profile(self, name: str, profile: Any) -> Tables:
        where = f"profiles.{name}"
        for key in self.table(profile, where):
            if key not in ("models", "defaults"):
                raise self.fail(where, key, "is unknown", nearest(key, ("models", "defaults")))
        return self.tables(profile, f"{where}.")

    # ------------------------------------------------------------ models and options
    def tables(self, document: Mapping[str, Any], prefix: str) -> Tables:
        models = self.table(document.get("models", {}), f"{prefix}models")
        defaults = self.table(document.get("defaults", {}), f"{prefix}defaults")
        if "headers" in defaults:
            hint = "A header may hold a credential and would go to every host: give it to a model"
            raise self.fail(f"{prefix}defaults", "headers", "can't be a default", hint)
        return Tables(
            {name: self.entry(f"{prefix}models", name, value) for name, value in models.items()},
            self.options(f"{prefix}defaults", "", defaults),
            f"{self.path} [{prefix}defaults]",
        )

    def entry(self, table: str, name: str, value: Any) -> Entry:
        if not _is_name(name):
            hint = "A name has letters, digits, - and _, and begins with a letter"
            raise self.fail(table, repr(name), "can't be the name of a model", hint)
        own: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            own = {key: entry for key, entry in value.items() if key != "address"}
            options = self.options(table, f"{name}.", own)
            if "address" not in value:
                raise self.fail(table, name, "has no address", f'Add address = "..." to [{table}] {name}')
            value = value["address"]
        else:
            options = {}
        return Entry(self.address(table, name, value), options, f"{self.path} [{table}] {name}", self.path.parent)

    def address(self, table: str, name: str, value: Any) -> str | tuple[str, ...]:
        each = value if isinstance(value, list) else [value]
        if not each or not all(isinstance(text, str) and text.strip() for text in each):
            raise self.fail(table, name, "wants an address, or a list of them", f'Write {name} = "scheme:target"')
        return tuple(each) if isinstance(value, list) else each[0]

    def options(self, table: str, prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.option(table, prefix, name, value) for name, value in given.items()}

    def option(self, table: str, prefix: str, name: str, value: Any) -> Any:
        key = f"{prefix}{name}"
        if name in KEYS:
            hint = f'Name it under [credentials."https://HOST"] {self.own_place()}'
            raise self.fail(table, key, "can't stand here: a credential belongs to an origin", hint)
        if name in _IN_CODE:
            raise self.fail(table, key, "can't be given in a file", f"Give it in code: load(..., {name}=...)")
        if name not in OPTION_NAMES:
            known = [*(n for n in OPTION_NAMES if n not in {*_IN_CODE, *KEYS}), *(["address"] if prefix else [])]
            raise self.fail(table, key, "is unknown", nearest(name, known))
        if name == "verify" and not isinstance(value, bool) and not self.users_own:
            raise self.fail(table, key, "can't name keys to trust", f"Name them under [trust] {self.own_place()}")
        if name == "network" and not self.users_own:
            self.check_network(table, key, value)
        try:
            return option(name, value, self.path.parent)
        except MisfitError as error:
            problem = self.misfit(table, key, error)
        raise problem

    def check_network(self, table: str, key: str, value: Any) -> None:
        """A stranger's authority and proxy could read the user's credentials; a key file is one."""
        for name in value if isinstance(value, Mapping) else ():
            if name != "http2":
                told = "isn't read from a working folder, which may come from strangers"
                raise self.fail(table, f"{key}.{name}", told, f"Put it {self.own_place()}, or give it in code")

    def serve(self, document: Mapping[str, Any]) -> Serve:
        table = self.table(document.get("serve", {}), "serve")
        if "public" in table and not self.users_own:
            told = "isn't read from a working folder: whether anybody may use the models is for you to say"
            raise self.fail("serve", "public", told, f"Put it {self.own_place()}, or say --public")
        of_models = {name: value for name, value in table.items() if name in OPTION_NAMES}
        if "headers" in of_models:
            hint = "A header may hold a credential and would go to every host: give it to a model"
            raise self.fail("serve", "headers", "can't stand here", hint)
        of_server = {name: value for name, value in table.items() if name not in OPTION_NAMES}
        return Serve(self.path, self.options("serve", "", of_models), of_server)

    # ------------------------------------------------------------ what only a user's own file may say
    def own_place(self) -> str:
        where = "in aiaas.toml in your own folder (AIAAS_HOME), or in the file that AIAAS_CONFIG names"
        return "in this file" if self.users_own else where

    def owned(self, document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        if name in document and not self.users_own:
            problem = "isn't read from a working folder, which may come from strangers"
            raise self.fail(name, "", problem, f"Put it {self.own_place()}")
        return self.table(document.get(name, {}), name)

    def trust(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        table = self.owned(document, "trust")
        for key in table:
            if key != "keys":
                raise self.fail("trust", key, "is unknown", nearest(key, ("keys",)))
        keys = table.get("keys", [])
        if not isinstance(keys, list) or not all(map(_is_public_key, keys)):
            raise self.fail("trust", "keys", "wants a list of public keys", 'Each is "ed25519:" and 32 bytes in base64')
        return tuple(keys)

    def credentials(self, document: Mapping[str, Any]) -> dict[str, Secret]:
        found: dict[str, Secret] = {}
        for text, table in self.owned(document, "credentials").items():
            origin = origin_of(text)
            if origin is None:
                problem = "has a key that is no origin"  # not repeated: it may hold a user and a password
                raise self.fail("credentials", "", problem, 'Write [credentials."https://HOST:PORT"], without a path')
            if origin in found:
                raise self.fail("credentials", origin, "stands there twice")
            found[origin] = self.credential(origin, table)
        return found

    def credential(self, origin: str, table: Any) -> Secret:
        try:
            return credential(table, self.path, self.environ)
        except MisfitError as error:
            problem = self.misfit(f'credentials."{origin}"', "", error)
        raise problem


def _is_name(name: str) -> bool:
    try:
        return parse(name).scheme == "name"
    except AddressError:
        return False


def _is_public_key(key: Any) -> bool:
    if not isinstance(key, str) or not key.startswith("ed25519:"):
        return False
    try:
        return len(base64.b64decode(key.removeprefix("ed25519:"), validate=True)) == 32
    except (binascii.Error, ValueError):
        return False
