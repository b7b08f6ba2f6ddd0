"""A credential that never shows itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from aiaas_sdk.errors import ConfigError

__all__ = ["Secret", "env"]


class Secret:
    """A credential and where it comes from. `repr`, `str` and `format` show `***`; it can't be pickled."""

    __slots__ = ("_read", "source")

    def __init__(self, read: Callable[[], str], source: str) -> None:
        self._read, self.source = read, source

    @classmethod
    def of(cls, value: str | Secret | Callable[[], str], source: str = "argument") -> Secret:
        """A secret from text, another secret, or a function that is asked at each use."""
        if isinstance(value, Secret):
            return value
        return cls(value if callable(value) else lambda: value, source)

    def reveal(self) -> str:
        """The value, without surrounding blanks. ConfigError, which never repeats it, where it can't be sent."""
        value = self._read().strip()
        if not value:
            raise ConfigError(f"the {self.source} is empty", hint="Set it, or leave api_key out")
        if not value.isascii() or not value.isprintable() or value[0] in "'\"":
            raise ConfigError(
                f"the {self.source} holds characters that no HTTP header can carry",
                hint="Give the bare key: ASCII, no quotes, no line breaks",
            )
        return value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret can't be pickled; send the name of its variable")


def env(name: str) -> Secret:
    """The credential in an environment variable, read when it is used."""
    return Secret(lambda: os.environ.get(name, ""), f"environment variable {name}")
