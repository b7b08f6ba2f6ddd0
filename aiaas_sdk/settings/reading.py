"""Both files and the environment, put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiaas_sdk.address import parse
from aiaas_sdk.errors import AddressError, AiaasError, ConfigError
from aiaas_sdk.records.secret import Secret
from aiaas_sdk.settings import variables
from aiaas_sdk.settings.credentials import origin_of
from aiaas_sdk.settings.documents import Document, Entry, Tables, load
from aiaas_sdk.settings.serving import PATH_SCHEMES, together
from aiaas_sdk.settings.values import nearest

__all__ = ["Resolved", "Settings", "read"]

FILE = "aiaas.toml"
LONG = 200
"""Characters of a name that an error repeats."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for.

    Attributes:
        address: scheme:target; several are a route.
        options: those of its entry, then those that hold for all models.
        sources: for each option and for "address", the file and table or the variable that set it.
    """

    address: str | tuple[str, ...]
    options: dict[str, Any] = field(repr=False)
    sources: dict[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What the files and the environment said when they were read.

    Attributes:
        documents: the files that are there, the project's before the user's.
        profile: the active profile, where AIAAS_PROFILE names one.
        environ: the variables of this package that were set.
    """

    documents: tuple[Document, ...]
    profile: str | None
    environ: Mapping[str, str]

    def __repr__(self) -> str:
        files = ", ".join(str(document.path) for document in self.documents) or "no file"
        return f"<Settings of {files}, profile {self.profile}>"

    # ------------------------------------------------------------ models
    @property
    def names(self) -> tuple[str, ...]:
        """The names that the files define (the active profile's too), sorted."""
        return tuple(sorted({name for tables in self._tables() for name in tables.models}))

    def resolve(self, name: str) -> Resolved:
        """What a bare name stands for: its variable, the active profile, [models]; the first hit is taken whole.

        Raises:
            AddressError: nothing defines it (near names are named), or its address is wrong or a name again.
            ConfigError: two names have the variable that is set.
        """
        entry = self._entry(name)
        options, sources = self.defaults
        options |= entry.options
        sources |= dict.fromkeys(entry.options, entry.source)
        return Resolved(_placed(entry), options, {"address": entry.source, **sources})

    def _entry(self, name: str) -> Entry:
        variable = variables.variable_of(name)
        if address := variables.value(self.environ, variable):
            self._check_alone(name, variable)
            return Entry(address, {}, f"environment variable {variable}", None)
        for tables in self._tables():
            if name in tables.models:
                return tables.models[name]
        define = f'Define it: {variable}=ADDRESS, or {name} = "ADDRESS" under [models] in {FILE}'
        near = f"{nearest(name, self.names)}. " if self.names else ""
        if len(name) > LONG:
            raise AddressError(f"{name[:LONG]!r}... is no address, and no name that settings define")
        raise AddressError(
            f"{name!r} is a bare name, and no settings define it", hint=f"{near}{define}; a folder is torch:{name}"
        )

    def _check_alone(self, name: str, variable: str) -> None:
        names = sorted(other for other in {name, *self.names} if variables.variable_of(other) == variable)
        if len(names) > 1:
            raise ConfigError(
                f"the environment variable {variable} stands for {' and '.join(map(repr, names))}",
                hint="Rename one of them, or unset the variable",
            )

    # ------------------------------------------------------------ options
    @property
    def defaults(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The options that hold for all models, and the source of each: the environment, the profile, [defaults]."""
        found = variables.options(self.environ)
        for tables in self._tables():
            for name, value in tables.options.items():
                found.setdefault(name, (value, tables.source))
        return {name: value for name, (value, _) in found.items()}, {name: s for name, (_, s) in found.items()}

    def _tables(self) -> Iterator[Tables]:
        """The profile's tables before the general ones, in each the project's before the user's."""
        for document in self.documents:
            if self.profile is not None and self.profile in document.profiles:
                yield document.profiles[self.profile]
        for document in self.documents:
            yield document.tables

    def serve(self, hints: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """What [serve] says, the project's before the user's, and the source of each option.

        Args:
            hints: the server's options, and the type of each.

        Raises:
            ConfigError: one is unknown, or doesn't fit.
        """
        return together([document.serve for document in self.documents], hints)

    # ------------------------------------------------------------ trust and credentials
    @property
    def trust(self) -> tuple[str, ...]:
        """The public keys whose signed programs may run, besides the user's own key."""
        return tuple(dict.fromkeys(key for document in self.documents for key in document.trust))

    def credential(self, origin: str) -> Secret | None:
        """The credential for exactly that origin (`https://host[:port]`), read when it is revealed; else None."""
        wanted = origin_of(origin)
        if wanted is None:
            return None
        found = (document.credentials.get(wanted) for document in self.documents)
        return next((secret for secret in found if secret is not None), None)


def read(folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the files and the environment. Nothing is kept: a file that changes is read anew by the next call.

    Args:
        folder: the working folder; None for the process's.
        environ: the environment; None for the process's.

    Raises:
        ConfigError: a file, a variable or the profile is wrong.
    """
    environ = os.environ if environ is None else environ
    variables.check_names(environ)
    documents = tuple(_documents(folder or Path(), environ))
    profile = variables.value(environ, "AIAAS_PROFILE") or None
    profiles = {name for document in documents for name in document.profiles}
    if profile is not None and profile not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"AIAAS_PROFILE names the unknown profile {profile!r}; there are: {known}",
            hint=f"Define [profiles.{profile}.models] in {FILE}, or unset AIAAS_PROFILE",
        )
    variables.options(environ)  # a wrong value is told now, whatever is loaded
    return Settings(documents, profile, variables.ours(environ))


def _documents(folder: Path, environ: Mapping[str, str]) -> Iterator[Document]:
    users = _home(environ) / FILE
    if named := variables.value(environ, "AIAAS_CONFIG"):
        path = _absolute(folder / os.path.expanduser(named))
        document = load(path, environ, users_own=True)
        if document is None:
            raise ConfigError(f"AIAAS_CONFIG names {path}, which isn't there", hint="Mend or unset the variable")
        yield document
    else:
        path = _absolute(folder / FILE)
        if not _same(path, users) and (document := load(path, environ, users_own=False)):
            yield document
    if not (named and _same(path, users)) and (document := load(_absolute(users), environ, users_own=True)):
        yield document


def _home(environ: Mapping[str, str]) -> Path:
    if path := variables.value(environ, "AIAAS_HOME"):
        return Path(path)
    from aiaas_sdk.bundle.signing import home  # which loads what checks manifests; not needed with AIAAS_HOME

    return home()


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError:  # the working folder was deleted
        return path


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


# ---------------------------------------------------------------- addresses
def _placed(entry: Entry) -> str | tuple[str, ...]:
    """The addresses of an entry, checked, with the paths in a file made absolute."""
    if isinstance(entry.address, str):
        return _one(entry.address, entry)
    return tuple(_one(text, entry) for text in entry.address)


def _one(text: str, entry: Entry) -> str:
    try:
        address = parse(text)
    except AiaasError as error:
        problem, hint = error.message, error.hint
    else:
        if address.scheme != "name":
            return (
                text if entry.folder is None else _rooted(address.scheme, address.target, address.version, text, entry)
            )
        problem = "the address is itself a bare name"
        hint = "Give scheme:target; names don't lead to names, and a folder is torch:PATH"
    raise AddressError(f"{entry.source}: {problem}", hint=hint)


def _rooted(scheme: str, target: str, version: str | None, text: str, entry: Entry) -> str:
    if scheme not in PATH_SCHEMES or entry.folder is None:
        return text
    path = os.path.normpath(entry.folder / os.path.expanduser(target))
    return f"{scheme}:{path}" + (f"@{version}" if version else "")
