"""`aiaas serve`: which options it has, where they come from, and a server of its own started by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aiaas_sdk.cli import serving
from aiaas_sdk.cli.app import app
from aiaas_sdk.server.serving import Serving

BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path / "own"))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `aiaas_sdk.server.serve` was called with; nothing is served."""
    found: dict[str, Any] = {}

    def serve(targets: Any, *, announce: Any, prepare: Any, **options: Any) -> None:
        found.update(options, targets=list(targets))

    monkeypatch.setattr("aiaas_sdk.server.running.serve", serve)
    return found


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def flags() -> set[str]:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {flag for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("name", [field.name for field in fields(Serving)])
def test_each_of_the_servers_options_is_a_flag(name: str) -> None:
    assert "--" + name.replace("_", "-") in flags()


def test_what_is_given_arrives_and_nothing_else(served: dict[str, Any]) -> None:
    run(
        *("a=echo:", "b=echo:", "--port", "0", "--max-batch-rows", "8", "--no-page", "--access-log"),
        *("--hosts", "a.example", "--hosts", "b.example", "--watch", "none", "--memory", "1000", "--timeout", "2.5"),
        *("--drain-delay", "5", "--jwt", "issuer=me", "--jwt", "audience=a", "--jwt", "audience=b", "--device", "cpu"),
    )
    assert served == {
        "targets": ["a=echo:", "b=echo:"],
        "port": 0,
        "max_batch_rows": 8,
        "page": False,
        "access_log": True,
        "hosts": ["a.example", "b.example"],
        "watch": None,
        "memory": 1000,
        "timeout": 2.5,
        "drain_delay": 5.0,
        "jwt": {"issuer": "me", "audience": ["a", "b"]},
        "device": "cpu",
    }


def test_the_table_serve_is_read_and_the_command_line_goes_first(served: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    Path("aiaas.toml").write_text(
        """
        [serve]
        targets = ["models", "near=torch:digits@3", "far=https://host/v2/models/x"]
        port = 9000
        workers = 3
        max_batch_delay = 0.002
        watch = "none"
        api_keys = "keys.toml"
        cors = ["https://a.example"]
        jwt = { issuer = "me", audience = ["a"] }
        timeout = 4
        retry = { attempts = 5 }
        """
    )
    run("--port", "9001", "--no-metrics")
    assert served.pop("retry").attempts == 5
    assert served == {
        "targets": [str(tmp_path / "models"), f"near=torch:{tmp_path / 'digits'}@3", "far=https://host/v2/models/x"],
        "port": 9001,
        "metrics": False,
        "workers": 3,
        "max_batch_delay": 0.002,
        "watch": None,
        "api_keys": tmp_path / "keys.toml",
        "cors": ("https://a.example",),
        "jwt": {"issuer": "me", "audience": ["a"]},
        "timeout": 4.0,
    }
    run("echo:")
    assert served["targets"] == ["echo:"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 'x'", "aiaas.toml [serve] port wants a whole number and has text"),
        ("prot = 1", "aiaas.toml [serve] prot is unknown. Did you mean 'port'"),
        ("timeout = 0", "aiaas.toml [serve] timeout isn't above 0"),
        ("cors = 'https://a.example'", "aiaas.toml [serve] cors wants a list and has text"),
        ("api_key = 'sk-s3cret'", "aiaas.toml [serve] api_key can't stand here"),
        ("headers = { a = 's3cret' }", "aiaas.toml [serve] headers can't stand here"),
        ("public = true", "aiaas.toml [serve] public isn't read from a working folder"),
    ],
)
def test_what_is_wrong_in_the_table_is_told_with_its_place(served: dict[str, Any], text: str, told: str) -> None:
    Path("aiaas.toml").write_text(f"[serve]\ntargets = ['echo:']\n{text}\n")
    output = " ".join(run(code=2).split())
    assert told.partition(". ")[0] in output
    assert told.partition(". ")[2] in output
    assert "s3cret" not in output
    assert served == {}


def test_a_users_own_file_may_make_it_public(served: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.toml").write_text("[serve]\ntargets = ['echo:']\nhost = '0.0.0.0'\npublic = true\n")
    monkeypatch.setenv("AIAAS_CONFIG", "own.toml")
    run()
    assert (served["host"], served["public"]) == ("0.0.0.0", True)


def test_with_nothing_to_serve_it_says_where_to_say_what() -> None:
    assert 'targets = ["..."] under [serve] in aiaas.toml' in " ".join(run(code=2).split())


def test_in_sagemakers_container_its_model_is_served(
    served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SAGEMAKER_MODEL", tmp_path / "model")
    (tmp_path / "model").mkdir()
    run()
    assert served == {"targets": [str(tmp_path / "model")], "host": "0.0.0.0", "port": 8080, "public": True}
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "9005")
    run("--workers", "2")
    assert (served["port"], served["workers"]) == (9005, 2)
    run("echo:")
    assert served["targets"] == ["echo:"]


@pytest.mark.parametrize("arguments", [["--jwt", "issuer"], ["--watch", "often"], ["--workers", "0"]])
def test_what_is_wrong_on_the_command_line_exits_with_2(served: dict[str, Any], arguments: list[str]) -> None:
    run("echo:", *arguments, code=2)


# ---------------------------------------------------------------- for real
@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", "--port", "0", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=10)[1]
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_what_the_table_says_and_logs_on_stdout(workers: str) -> None:
    Path("mine.py").write_text("print('imported', file=__import__('sys').stderr)\n")
    Path("aiaas.toml").write_text('[serve]\ntargets = ["one=echo:?x=FP32[-1,3]"]\naccess_log = true\n')
    with started("--workers", workers, "--import", "mine") as (process, told):
        assert told["models"] == ["one"]
        url = f"{told['url']}/v2/models/one/infer?secret=1"
        with urllib.request.urlopen(urllib.request.Request(url, BODY), timeout=10) as reply:
            assert reply.status == 200
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert (line["model"], line["status"], line["verb"]) == ("one", 200, "predict")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert "option access_log is from" in log
        assert log.count("imported") == (1 if workers == "1" else 3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_on_a_terminal_it_says_once_where_it_serves(workers: str) -> None:
    import pty

    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", "one=echo:", "--port", "0", "--workers", workers]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    try:
        shown = b""
        while b"serving one at http://" not in shown:
            shown += os.read(screen, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        with suppress(OSError):  # EIO: nobody holds the terminal any more
            while piece := os.read(screen, 4096):
                shown += piece
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert shown.count(b"http://") == 1, shown


@pytest.mark.parametrize("option", ["--memory", "--watch", "--timeout"])
def test_a_limit_is_a_number_or_none(option: str) -> None:
    result = CliRunner().invoke(app, ["serve", "echo:", option, "abc"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "'abc' is neither a number nor none" in result.stderr
