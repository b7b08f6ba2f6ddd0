"""Backends by entry point: real distributions in a folder on the path, good and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import hookspecs, registry
from aiaas_sdk.testing import FaultServer
from aiaas_sdk.testing.faults import status

GOOD = """
from aiaas_sdk.backends.echo import EchoBackend
from aiaas_sdk.hookspecs import hookimpl

@hookimpl
def aiaas_backend(scheme):
    return EchoBackend
"""

OWN = """
from aiaas_sdk.backends.base import LocalBackend, RemoteBackend
from aiaas_sdk.hookspecs import hookimpl

class Own({base}):
    {body}

@hookimpl
def aiaas_backend(scheme):
    return Own
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Installs a distribution with one module and one entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        scheme: str, module: str, code: str, distribution: str | None = None, group: str = "backends", more: str = ""
    ) -> None:
        name = distribution or f"aiaas-{scheme}"
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}")
        (info / "entry_points.txt").write_text(f"[aiaas_sdk.{group}]\n{scheme} = {module}\n")
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
        (GOOD.replace("return EchoBackend", "return EchoBackend(None, {})"), "gave an EchoBackend, which is no class"),
        (GOOD.replace("return EchoBackend", "return dict"), "dict is neither a LocalBackend nor a RemoteBackend"),
        (GOOD.replace("(scheme)", "(scheme, colour)"), "colour"),
        (GOOD.replace("@hookimpl", ""), "no hook aiaas_backend"),
        (GOOD + "aiaas_api = 2", "written for version 2 of the plugin API, and this is version 1"),
        (OWN.format(base="LocalBackend, RemoteBackend", body="pass"), "both a LocalBackend and a RemoteBackend"),
        (OWN.format(base="LocalBackend", body="pass"), "no method open"),
        (OWN.format(base="RemoteBackend", body="def opening(self, call): ..."), "no method readiness"),
        (
            OWN.format(base="LocalBackend", body="def open(self): ...\n    def predict(self, x): ..."),
            "called as def predict",
        ),
        (OWN.format(base="LocalBackend", body="async def open(self): ..."), "an async open"),
        (OWN.format(base="LocalBackend", body="def open(self): ...\n    predict = 3"), "predict = an int"),
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


def test_a_plugin_for_another_version_says_which_it_asks_for(install) -> None:  # type: ignore[no-untyped-def]
    code = "from aiaas_sdk.backends.base import QuantumBackend"
    install("ahead", "ahead_plugin", code, more="Requires-Dist: aiaas-sdk>=9\n")
    with pytest.raises(aiaas.PluginLoadError, match=r"QuantumBackend.*asks for aiaas-sdk>=9; this is aiaas-sdk 0"):
        aiaas.load("ahead:")


def test_a_damaged_distribution_harms_nobody_else(install, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    install("hurt", "hurt_plugin", GOOD)
    (tmp_path / "aiaas_hurt-1.0.dist-info" / "entry_points.txt").write_text("[aiaas_sdk.backends]\nno equals sign\n")
    install("fine", "fine_plugin", GOOD)
    assert aiaas.available_backends()["fine"].state == "ready"
    assert "echo" in aiaas.available_backends()
    assert aiaas.load("fine:").ready()
    with pytest.raises(aiaas.BackendNotInstalledError):
        aiaas.load("hurt:")


def test_an_unknown_scheme_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(aiaas.BackendNotInstalledError, match=r"often called aiaas-imagined. Installed are echo,"):
        aiaas.load("imagined:x")
    monkeypatch.setattr(registry, "KNOWN", {"imagined": "aiaas-dreams"})
    with pytest.raises(aiaas.BackendNotInstalledError, match='Install it: pip install "aiaas-dreams"'):
        aiaas.load("imagined:x")


def test_known_schemes_are_those_of_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "backends.md").read_text()
    for scheme, package in registry.KNOWN.items():
        assert f'| `{scheme}:` | `pip install "{package}"` |' in page


async def test_awaited_a_plugin_is_imported_when_it_is_opened(install) -> None:  # type: ignore[no-untyped-def]
    install("late", "late_plugin", GOOD)
    model = aiaas.load_async("late:?x=FP32[1]")
    assert "late_plugin" not in sys.modules
    assert "explain isn't available for late:" in str(model._unsupported("explain"))
    assert (await model.predict([1.0])).array.tolist() == [1.0]
    await model.aclose()
    with pytest.raises(aiaas.AddressError):  # now that it is there, an address is checked at once
        aiaas.load_async("late:?rubbish")


async def test_awaited_a_wrong_address_is_told_when_it_is_opened(install) -> None:  # type: ignore[no-untyped-def]
    install("strict", "strict_plugin", GOOD)
    model = aiaas.load_async("strict:?rubbish")
    with pytest.raises(aiaas.AddressError, match="rubbish"):
        await model.info()
    await model.aclose()


async def test_awaited_a_broken_plugin_is_told_when_it_is_opened(install) -> None:  # type: ignore[no-untyped-def]
    install("wreck", "wreck_plugin", "import sys; sys.exit(3)")
    async with aiaas.load_async(["wreck:", "echo:?x=FP32[1]"]) as route:
        assert (await route.predict([1.0])).backend == "echo"
    with pytest.raises(aiaas.PluginLoadError, match="SystemExit"):
        await aiaas.load_async("wreck:").info()


# ---------------------------------------------------------------- other kinds
POLICY = """
from dataclasses import replace
from aiaas_sdk.hookspecs import hookimpl

def audit(call, request, proceed):
    reply = yield from proceed(call, replace(request, headers={**request.headers, "x-audit": call.verb}))
    return reply

@hookimpl
def aiaas_policy(name):
    return audit
"""


def test_a_policy_of_a_plugin_wraps_each_request(install, load) -> None:  # type: ignore[no-untyped-def]
    install("audit", "audit_plugin", POLICY, group="policies")
    with FaultServer() as server, load(server.address, policies=["audit"], timeout=10) as model:
        server.on("predict", status(503))
        assert model.predict([[1.0, 2.0, 3.0]]).attempts == 2
        assert [seen.headers.get("x-audit") for seen in server.of("predict")] == ["predict", "predict"]


def test_a_policy_that_is_not_there_is_told_to_who_asks_for_it(install) -> None:  # type: ignore[no-untyped-def]
    install("bad-policy", "bad_policy_plugin", "raise RuntimeError('no licence')", group="policies")
    with pytest.raises(aiaas.ConfigError, match=r"no installed plugin has a policy 'audits'"):
        aiaas.load("echo:", policies=["audits"])
    with pytest.raises(aiaas.ConfigError, match="policies is no list"):
        aiaas.load("echo:", policies="audit")
    with pytest.raises(aiaas.PluginLoadError, match=r"aiaas-bad-policy 1\.0.*no licence"):
        aiaas.load("echo:", policies=["bad-policy"])
    assert aiaas.load("echo:").ready()


ARCHITECTURE = """
import torch
from aiaas_sdk.hookspecs import hookimpl

class Half(torch.nn.Module):
    def forward(self, x):
        return {"y": x / 2}

@hookimpl
def aiaas_architecture(name):
    return Half
"""


def test_an_architecture_of_a_plugin_is_found_by_its_hook(install, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    install("half", "half_plugin", ARCHITECTURE, group="architectures")
    inputs = {"x": ("FP32", (-1, 2))}
    with aiaas.create(f"torch:{tmp_path / 'm'}", architecture="half", inputs=inputs) as model:
        assert model.predict([[1.0, 2.0]])["y"].tolist() == [[0.5, 1.0]]
    install("odd", "odd_plugin", ARCHITECTURE.replace("return Half", "return 3"), group="architectures")
    with pytest.raises(aiaas.PluginLoadError, match=r"aiaas-odd.*gave an int, which is no class"):
        aiaas.create(f"torch:{tmp_path / 'n'}", architecture="odd", inputs=inputs)


def test_each_hook_is_named_by_a_test() -> None:
    """As a plugin author looks them up."""
    hooks = [name for name in vars(hookspecs) if name.startswith("aiaas_")]
    told = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    page = (Path(__file__).parent.parent / "docs" / "backends.md").read_text()
    for hook in hooks:
        assert f"def {hook}(" in told, hook
        assert hook in page, hook


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
