"""The environment variables: which there are, and which look like one that was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.settings.values import MisfitError, option, parsed

__all__ = ["MODEL", "check_names", "options", "ours", "value", "variable_of"]

PREFIX = "AIAAS_"
MODEL = "AIAAS_MODEL_"
OPTIONS = {
    "AIAAS_TIMEOUT": "timeout",
    "AIAAS_ATTEMPT_TIMEOUT": "attempt_timeout",
    "AIAAS_DEVICE": "device",
    "AIAAS_DTYPE": "dtype",
    "AIAAS_CONCURRENCY": "concurrency",
    "AIAAS_BATCH_SIZE": "batch_size",
}
KNOWN = (*OPTIONS, "AIAAS_PROFILE", "AIAAS_CONFIG", "AIAAS_HOME")
_OTHER = re.compile(r"[^A-Z0-9]")


def value(environ: Mapping[str, str], name: str) -> str:
    """A variable's text without surrounding blanks; "" where it is unset, empty or blank."""
    return environ.get(name, "").strip()


def ours(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables under our prefix, as they are now."""
    return {name: text for name, text in environ.items() if name.startswith(PREFIX)}


def variable_of(model: str) -> str:
    """The variable of a model's name: "my-model" has AIAAS_MODEL_MY_MODEL."""
    return MODEL + _OTHER.sub("_", model.upper())


def options(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """The options that are set, each with its source.

    Raises:
        ConfigError: a value doesn't fit. It names the variable and not the value, which may be a key pasted
            into the wrong line.
    """
    found = {}
    for name, target in OPTIONS.items():
        if text := value(environ, name):
            found[target] = (_option(name, target, text), f"environment variable {name}")
    return found


def _option(name: str, target: str, text: str) -> Any:
    try:
        return option(target, parsed(target, text), Path())
    except MisfitError as error:
        problem, hint = error.problem, error.hint
    raise ConfigError(f"the environment variable {name} {problem}", hint=hint)


def check_names(environ: Mapping[str, str]) -> None:
    """ConfigError for a set variable that looks like a misspelt one. Others under the prefix aren't ours."""
    for name in environ:
        if name.upper().startswith(PREFIX) and name not in KNOWN and value(environ, name):
            meant = _meant(name.upper().removeprefix(PREFIX)) if not _names_model(name) else None
            if meant is not None:
                raise ConfigError(f"the environment variable {name} is unknown", hint=f"Did you mean {meant}?")


def _names_model(name: str) -> bool:
    return name.startswith(MODEL) and name != MODEL


def _meant(rest: str) -> str | None:
    """Compared without the prefix, which would make everything alike; 0.8 tells READ_TIMEOUT from TIMEOUT."""
    import difflib  # only where an unknown variable is set

    short = {name.removeprefix(PREFIX): name for name in KNOWN}
    if near := difflib.get_close_matches(rest, short, 1, 0.8):
        return short[near[0]]
    head, _, tail = rest.partition("_")
    if difflib.get_close_matches(head, ("MODEL",), 1, 0.8):
        return MODEL + (tail or "<NAME>")
    return None
