"""Backends by entry point: real distributions in a folder on the path, good and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aiaas_sdk as aiaas

GOOD = """
from aiaas_sdk.backends.echo import EchoBackend
from aiaas_sdk.hookspecs import hookimpl

@hookimpl
def aiaas_backend(scheme):
    return EchoBackend
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Installs a distribution with one module and one entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(scheme: str, module: str, code: str, distribution: str | None = None) -> None:
        name = distribution or f"aiaas-{scheme}"
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aiaas_sdk.backends]\n{scheme} = {module}\n")
        (tmp_path / f"{module}.py").write_text(code)
        sys.modules.pop(module, None)

    return install


def test_a_plugin_is_listed_without_being_imported_and_then_serves(install) -> None:  # type: ignore[no-untyped-def]
    install("mirror", "mirror_plugin", GOOD)
    info = aiaas.available_backends()["mirror"]
    assert (info.distribution, info.version, info.state) == ("aiaas-mirror", "1.0", "ready")
    assert "mirror_plugin" not in sys.modules
    assert aiaas.load("mirror:?x=FP32[1]").predict([1.0]).array.tolist() == [1.0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "no licence"),
        ("raise SystemExit(3)", "SystemExit"),
        ("import nothing_like_this", "nothing_like_this"),
        (GOOD.replace("aiaas_backend", "aiaas_backnd"), "aiaas_backnd"),
        (GOOD.replace("return EchoBackend", "return None"), "no class"),
    ],
)
def test_a_broken_plugin_names_itself_and_harms_nobody(install, code: str, words: str) -> None:  # type: ignore[no-untyped-def]
    install("bad", "bad_plugin", code)
    with pytest.raises(aiaas.PluginLoadError, match=rf"(?s)aiaas-bad.*{words}"):
        aiaas.load("bad:x")
    assert aiaas.available_backends()["bad"].state.startswith("broken: ")
    assert aiaas.load("echo:").ready()


def test_two_claimants_are_both_named(install) -> None:  # type: ignore[no-untyped-def]
    install("twice", "one_plugin", GOOD, "aiaas-one")
    install("twice", "two_plugin", GOOD, "aiaas-two")
    with pytest.raises(aiaas.PluginLoadError, match="aiaas-one and aiaas-two"):
        aiaas.load("twice:x")


def test_a_plugin_that_was_mended_loads(install, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    install("later", "later_plugin", "raise RuntimeError('not yet')")
    with pytest.raises(aiaas.PluginLoadError):
        aiaas.load("later:")
    (tmp_path / "later_plugin.py").write_text(GOOD + "\n# mended\n")
    assert aiaas.load("later:").ready()


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("echo:", ("oip", "route", "torch")),
        ("http://127.0.0.1:9/v2/models/m", ("echo", "route", "torch")),
        (["echo:", "http://127.0.0.1:9/v2/models/m"], ("torch",)),
    ],
)
def test_loading_one_backend_imports_that_one_alone(address: str | list[str], others: tuple[str, ...]) -> None:
    code = f"""
import subprocess
import sys
import aiaas_sdk as aiaas
aiaas.load({address!r})
loaded = [name for name in {others!r} if f"aiaas_sdk.backends.{{name}}" in sys.modules]
assert not loaded, loaded
assert not {{"torch", "httpx", "httpx2", "starlette", "typer"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
