"""`aiaas new-backend`: what it writes is a package whose tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiaas_sdk.cli.app import app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_it_says_what_it_wrote(tmp_path: Path) -> None:
    told = json.loads(run("new-backend", "my-model", "--local", "--into", str(tmp_path), "--json").stdout)
    folder = Path(told["folder"])
    assert folder == tmp_path / "aiaas-my-model"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(told["files"])
    assert {"pyproject.toml", "README.md", ".github/workflows/tests.yml"} <= set(told["files"])
    left = [path.name for path in folder.rglob("*") if path.is_file() and "$" in path.read_text()]
    assert left == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Mine", "--local"), "can't be a scheme"),
        (("echo", "--local"), "served by aiaas-sdk already"),
        (("https", "--remote"), "can't be a scheme"),
        (("mine",), "local or remote"),
        (("mine", "--local", "--remote"), "local or remote"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    failed = run("new-backend", *arguments, "--into", str(tmp_path))
    assert failed.exit_code == 2
    assert words in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "aiaas-mine").mkdir()
    assert "is there already" in run("new-backend", "mine", "--local", "--into", str(tmp_path)).stderr
    assert list((tmp_path / "aiaas-mine").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "remote"])
def test_its_tests_pass_as_it_is_written_in_a_fresh_environment(kind: str, tmp_path: Path) -> None:
    assert run("new-backend", f"my-{kind}", f"--{kind}", "--into", str(tmp_path)).exit_code == 0
    package = tmp_path / f"aiaas-my-{kind}"
    python = _environment(tmp_path / "environment")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index"]
    _run([*pip, "--no-deps", "--no-build-isolation", str(package)], tmp_path)
    done = _run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"], package)
    assert f"TestMy{kind.capitalize()}: " in done
    asked, _, rest = done.partition("TestMy")[2].partition(": ")[2].partition(" of ")
    assert asked == rest.partition(" pass")[0]
    assert int(asked) >= 90


def _environment(folder: Path) -> Path:
    """The python of a fresh environment that sees this one's packages: none have to be fetched."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip("environments lie otherwise here")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(_run([str(python), "-c", code], folder).strip())
    (own / "seen.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def _run(command: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout
