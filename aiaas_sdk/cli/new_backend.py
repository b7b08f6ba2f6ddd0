"""A package for a backend of one's own, complete: its tests pass as it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from aiaas_sdk._version import __version__
from aiaas_sdk.errors import ConfigError

__all__ = ["Written", "write"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_EVERY = {
    "pyproject.toml.txt": "pyproject.toml",
    "gitignore.txt": ".gitignore",
    "ci.yml.txt": ".github/workflows/tests.yml",
    "init.py.txt": "{package}/__init__.py",
    "KIND/README.md.txt": "README.md",
    "KIND/backend.py.txt": "{package}/backend.py",
    "KIND/test_backend.py.txt": "tests/test_backend.py",
    "KIND/test_conformance.py.txt": "tests/test_conformance.py",
}
_REMOTE = {"KIND/server.py.txt": "tests/server.py", "KIND/conftest.py.txt": "tests/conftest.py"}

Written = tuple[Path, tuple[str, ...]]
"""The folder, and the files in it."""


def write(name: str, kind: str, into: Path) -> Written:
    """Write the package of a backend.

    Args:
        name: the scheme of its addresses; the distribution is called aiaas-NAME.
        kind: "local" or "remote".
        into: the folder that gets a new one, called as the distribution.

    Raises:
        ConfigError: the name can't be one, is taken, or the folder is there already.
    """
    _check(name)
    folder = into / f"aiaas-{name}"
    if folder.exists():
        raise ConfigError(f"{folder} is there already", hint="Choose another name or folder; nothing was written")
    words = _words(name)
    written = []
    for template, path in {**_EVERY, **(_REMOTE if kind == "remote" else {})}.items():
        place = path.format(package=words["package"])
        text = _template(template.replace("KIND", kind)).substitute(words)
        _put(folder / place, text)
        written.append(place)
    _put(folder / words["package"] / "py.typed", "")
    return folder, (*written, f"{words['package']}/py.typed")


def _check(name: str) -> None:
    from aiaas_sdk.registry import available_backends

    if not _NAME.fullmatch(name) or len(name) < 2 or name in ("http", "https", "name"):
        raise ConfigError(f"{name!r} can't be a scheme", hint="Lower-case letters and digits, as in my-model")
    if (taken := available_backends().get(name)) is not None:
        raise ConfigError(f"the scheme {name!r} is served by {taken.distribution} already", hint="Choose another one")


def _words(name: str) -> Mapping[str, str]:
    major, minor = __version__.split(".")[:2]
    return {
        "scheme": name,
        "distribution": f"aiaas-{name}",
        "package": f"aiaas_{name.replace('-', '_')}",
        "name": "".join(part.capitalize() for part in name.split("-")),
        "version": __version__,
        # before 1.0 a minor version may change what plugins are written against
        "next": f"{int(major) + 1}" if int(major) else f"0.{int(minor) + 1}",
    }


def _template(name: str) -> Template:
    return Template(files("aiaas_sdk.templates").joinpath(name).read_text("utf-8"))


def _put(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
