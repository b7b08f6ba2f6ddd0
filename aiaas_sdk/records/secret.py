"""A credential that never shows itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from os import PathLike
from typing import Any, NoReturn

from aiaas_sdk.articles import kind_of, with_article
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.sources import Answer, File, Function, Problem, Source, Text, checked

__all__ = ["Secret", "env", "hide", "names_variable"]


class Secret:
    """A credential and where it comes from. `repr`, `str` and `format` show `***`; it can't be pickled.

    Text stays what it is; a variable and a file are looked at for each request; a function is asked once, and again
    when a peer refuses its answer (401) or when the seconds are over for which it said that its answer is good.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: Source, source: str) -> None:
        """`of`, `file` and `aiaas.env` make one; `source` completes "the ..." in messages."""
        self._value, self.source = value, source

    @classmethod
    def of(cls, value: str | Secret | Callable[[], Answer], source: str = "argument api_key") -> Secret:
        """A secret from text, another secret, or a function without arguments.

        The function gives the credential, or a pair of it and the seconds for which it is good. It runs in a thread
        of its own, one call at a time; all who need its answer wait for the same one.
        """
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(Text(Hidden(value).reveal), source)
        if not callable(value):
            kind = kind_of(value)
            del value
            raise ConfigError(f"the {source} is {kind}", hint="Give text, aiaas.env(NAME), a file or a function")
        return cls(Function(value), f"function {getattr(value, '__qualname__', type(value).__name__)}")

    @classmethod
    def file(cls, path: str | PathLike[str]) -> Secret:
        """The credential in a file, read again when the file has changed. Blanks and line breaks around it don't count.

        A file that every user of the machine may read is used, and a warning says so.
        """
        absolute = os.path.abspath(os.path.expanduser(os.fspath(path)))
        return cls(File(absolute), f"file {absolute}")

    # ------------------------------------------------------------ the value
    def reveal(self) -> str:
        """The value, without surrounding blanks; waits for a function.

        Raises:
            ConfigError: there is none, or none that a header can carry. It names the source, never the value.
        """
        waiting = self.asked()
        if waiting is not None and (problem := waiting.result()) is not None:
            raise self.wrong(problem)
        return self.current().reveal()

    # ------------------------------------------------------------ for a flow, which doesn't wait itself
    def asked(self, stale: Hidden | None = None) -> Future[Problem | None] | None:
        """What to wait for before `current`; None for nothing. With `stale`: until there may be another value.

        The future is the caller's own, to be cancelled when nobody waits any more. It never fails; its result is the
        problem, which is the same for all who asked while the function was at work.
        """
        return self._value.asked(stale)

    def current(self) -> Hidden:
        """The value as it is known now, which `asked` has made sure of. ConfigError as `reveal`."""
        value = self._value.value()
        if isinstance(value, Hidden):
            value = checked(value)
        if isinstance(value, Problem):
            raise self.wrong(value)
        return value

    def wrong(self, problem: Problem) -> ConfigError:
        return ConfigError(f"the {self.source} {problem.what}", hint=problem.hint)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret can't be pickled; send the name of its variable")


def env(name: str) -> Secret:
    """The credential in an environment variable, read when it is used.

    Raises:
        ConfigError: that can't be the name of a variable. It isn't repeated: it may be the key itself.
    """
    if not names_variable(name):
        del name
        raise ConfigError("aiaas.env was given what isn't the name of a variable", hint='Write aiaas.env("MY_KEY")')
    return Secret(Text(lambda: os.environ.get(name, "")), f"environment variable {name}")


def names_variable(text: str) -> bool:
    """Whether a text can be the name of a variable, as a shell has them; most keys can't."""
    return text.isascii() and text.isidentifier()


def hide(options: Any) -> None:
    """Make a Secret of the option `api_key` and hidden text of the values of `headers`, in place.

    It comes first wherever options come in, so that no later frame, message or attribute holds them.

    Raises:
        ConfigError: one of them is of another type.
    """
    if options.get("api_key") is not None:
        options["api_key"] = Secret.of(options.pop("api_key"))
    if options.get("headers") is not None:
        options["headers"] = _hidden(options.pop("headers"))


def _hidden(headers: Any) -> dict[str, Hidden | Secret]:
    made = {name: _header(value) for name, value in headers.items()} if isinstance(headers, Mapping) else type(headers)
    del headers
    if isinstance(made, type):
        raise ConfigError(f"headers is {with_article(made.__name__)}", hint='Give a mapping: headers={"x-tenant": "a"}')
    for name, value in made.items():
        if isinstance(value, type):
            hint = "Give text, aiaas.env(NAME) or aiaas.Secret.file(PATH)"
            raise ConfigError(f"the header {name!r} is {with_article(value.__name__)}", hint=hint)
    return made


def _header(value: Any) -> Any:
    """A header's value, hidden; of what can't be one, the type."""
    if isinstance(value, str):
        return Hidden(value)
    return value if isinstance(value, Hidden | Secret) else type(value)
