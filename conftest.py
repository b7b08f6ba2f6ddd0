"""Fixtures for all tests, and the pages: each Python block of README.md and docs/*.md is run.

A page is one program: its blocks share one namespace and one temporary working folder, in order.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.myst import PythonCodeBlockParser

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C, and so are its children; tests of Ctrl-C need ears.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


def _isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep out what belongs to whoever runs the tests (settings, keys, proxies), and out of their home."""
    for name in list(os.environ):
        if name.startswith("AIAAS_") or name.upper() in PROXIES:
            patch.delenv(name)
    for name in ("AIAAS_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        patch.setenv(name, str(folder / name.lower()))
    if (tokens := sys.modules.get("aiaas_sdk.policies.tokens")) is not None:
        tokens.forget()  # a port comes back, and the outage of an earlier test with it


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names for new folders. pytest's own numbers cost a look at all the folders that there are, for each test."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture
def isolated(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of its own: no AIAAS_* of a user, no proxy, home and settings in temporary folders."""
    home = next(homes)
    home.mkdir()
    _isolate(monkeypatch, home)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of one page, with an environment of its own."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, tmp_path_factory.mktemp("home"))
        patch.chdir(folder)
        yield folder


# No parser for "skip": a block that can't run doesn't belong on a page.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    fixtures=["page"],
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page takes as long as its slowest block, and its blocks need each other."""
    for item in items:
        if isinstance(item, SybilItem):
            item.add_marker(pytest.mark.slow)
