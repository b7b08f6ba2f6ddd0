"""Servers of other protocols: found by entry point, and a clear error where one is missing or broken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import create_app
from aiaas_sdk.server.beside import GROUP, beside

MODULE = """
class Server:
    def __init__(self, *arguments):
        self.arguments = arguments

def broken(*arguments):
    raise RuntimeError("no such luck")
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "aiaas_other-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-other\nVersion: 1.0\n")
    entries = "good = other_server:Server\nbad = other_server:broken\ngone = other_server:nothing\n"
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}")
    (tmp_path / "other_server.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_server", raising=False)


def test_a_plugins_server_is_made() -> None:
    app = create_app(["echo:"])
    made: Any = beside("good", app, "127.0.0.1", 1, 2)
    assert made.arguments == (app, "127.0.0.1", 1, 2)


def test_no_plugin_has_the_protocol() -> None:
    with pytest.raises(aiaas.BackendNotInstalledError, match="pip install aiaas-carrier-pigeon"):
        beside("carrier-pigeon", create_app(["echo:"]), "127.0.0.1", 1, 2)


@pytest.mark.parametrize("protocol", ["bad", "gone"])
def test_a_plugin_that_cant_be_loaded(protocol: str) -> None:
    with pytest.raises(aiaas.PluginLoadError, match=f"serves {protocol} can't be loaded"):
        beside(protocol, create_app(["echo:"]), "127.0.0.1", 1, 2)
