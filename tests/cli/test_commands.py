"""Commands that plugins bring."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiaas_sdk.cli.app import app

HELLO = """
from typing import Annotated
import typer
from aiaas_sdk.errors import InputError
from aiaas_sdk.hookspecs import hookimpl

def hello(name: Annotated[str, typer.Argument(help="Whom.")], as_json: Annotated[bool, typer.Option("--json")] = False):
    \"\"\"Say hello.\"\"\"
    if name == "nobody":
        raise InputError("nobody is there", hint="Call another")
    print("hello", name)

@hookimpl
def aiaas_command(name):
    return hello
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    info = tmp_path / "aiaas_hello-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-hello\nVersion: 1.0\n")
    entries = "hello = hello_command\nwreck = wreck_command\nserve = hello_command\n"
    (info / "entry_points.txt").write_text(f"[aiaas_sdk.commands]\n{entries}")
    (tmp_path / "hello_command.py").write_text(HELLO)
    (tmp_path / "wreck_command.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("hello_command", None)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_they_are_listed_with_who_brings_them_and_not_imported() -> None:
    listed = run("--help").stdout
    assert "Brought by aiaas-hello" in listed
    assert "wreck" in listed
    assert "hello_command" not in sys.modules


def test_they_run_with_their_own_help_and_our_errors() -> None:
    assert run("hello", "world").stdout == "hello world\n"
    assert "Whom." in run("hello", "--help").stdout
    failed = run("hello", "nobody", "--json")
    assert (failed.exit_code, failed.stderr) == (2, "aiaas: nobody is there\n  Call another\n")
    assert '"type": "InputError"' in failed.stdout


def test_a_broken_one_fails_who_runs_it() -> None:
    failed = run("wreck")
    assert failed.exit_code == 2
    assert "aiaas-hello 1.0" in failed.stderr
    assert "no licence" in failed.stderr
    assert run("backends").exit_code == 0


def test_none_takes_the_place_of_ours() -> None:
    assert "Serve models over HTTP" in run("serve", "--help").stdout


def test_an_unknown_one_is_told() -> None:
    assert run("hallo").exit_code == 2


def test_a_command_of_a_package_that_isnt_there_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiaas_sdk.registry.commands", dict)  # as where aiaas-onnx isn't installed
    failed = run("export", "torch:models/digits", "digits.onnx")
    assert failed.exit_code == 2
    assert (
        failed.stderr
        == "aiaas: the command 'export' is in the package aiaas-onnx\n  Install it: pip install aiaas-onnx\n"
    )
