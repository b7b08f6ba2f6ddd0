"""`aiaas doctor`: every setting with its source, and one real call."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.cli.app import app
from aiaas_sdk.server.serving import Serving

ECHO = "echo:?x=FP32[-1,3]&text=BYTES[-1,1]"
KEY = "s3cr3t-k3y"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def doctor(*arguments: str, code: int = 0) -> tuple[str, Any]:
    """The text and the document of a diagnosis."""
    results = [CliRunner().invoke(app, ["doctor", *arguments, *more]) for more in ([], ["--json"])]
    for result in results:
        assert result.exit_code == code, result.output
        assert KEY not in result.output
    return results[0].stdout, json.loads(results[1].stdout)


def test_an_address_is_called_once_with_zeros() -> None:
    text, found = doctor(ECHO)
    assert f"aiaas-sdk     {aiaas.__version__}" in text
    assert "call: zeros in, x [1, 3], text [1, 1] out; total" in text
    assert "FAILED" not in text
    (member,) = found["members"]
    assert [step["step"] for step in member["steps"]] == ["backend", "load", "open", "ready", "call"]
    assert member["timing"]["total"] > 0
    assert (member["backend"], member["model"]["version"], member["credential"]) == ("echo", "1", None)
    assert found["environment"]["python"]


def test_each_setting_is_told_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("aiaas.toml").write_text(
        f'[models]\nsame = {{ address = "{ECHO}", timeout = 7 }}\n[defaults]\nbatch_size = 4\n'
    )
    monkeypatch.setenv("AIAAS_ATTEMPT_TIMEOUT", "2")
    text, found = doctor("same", "--timeout", "9")
    sources = {entry["name"]: (entry["value"], entry["source"]) for entry in found["members"][0]["settings"]}
    file = str(Path("aiaas.toml").resolve())
    assert sources["timeout"] == ("9.0", "argument")
    assert sources["attempt_timeout"] == ("2.0", "environment variable AIAAS_ATTEMPT_TIMEOUT")
    assert sources["batch_size"] == ("4", f"{file} [defaults]")
    assert sources["address"] == (ECHO, f"{file} [models] same")
    assert found["files"] == [file]
    assert "AIAAS_ATTEMPT_TIMEOUT" in found["variables"]
    assert file in text


def test_each_setting_of_the_server_is_told_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("AIAAS_HOME", str(home))
    monkeypatch.setenv("AIAAS_ATTEMPT_TIMEOUT", "2")
    (home / "aiaas.toml").write_text('[serve]\nport = 9000\ngrace = 5\n[serve.jwt]\nissuer = "i"\nkey = "the-pem"\n')
    Path("aiaas.toml").write_text(f'[serve]\ntargets = ["one={ECHO}"]\nport = 8080\nwatch = "none"\ntimeout = 3\n')
    text, found = doctor(ECHO)
    mine, theirs = (f"{Path(folder, 'aiaas.toml').resolve()} [serve]" for folder in (".", home))
    told = {entry["name"]: (entry["value"], entry["source"]) for entry in found["serve"]}
    assert told["targets"] == (f"one={ECHO}", mine)
    assert told["port"] == ("8080", mine)
    assert told["watch"] == ("none", mine)
    assert told["timeout"] == ("3.0", mine)
    assert told["grace"] == ("5.0", theirs)
    assert told["jwt"] == ("issuer, key", theirs)
    assert told["attempt_timeout"] == ("2.0", "environment variable AIAAS_ATTEMPT_TIMEOUT")
    assert told["host"] == ("127.0.0.1", "default")
    assert told["workers"] == ("1", "default")
    assert told["access_log"] == ("false", "default")
    assert {option.name for option in fields(Serving)} <= told.keys()
    assert "aiaas serve\n" in text
    assert "the-pem" not in text


def test_settings_of_the_server_that_cant_be_used_are_told() -> None:
    Path("aiaas.toml").write_text("[serve]\nworkers = 0\n")
    text, found = doctor(ECHO, code=2)
    assert "FAILED  serve: workers is 0" in text
    assert found["serve"] == []
    Path("aiaas.toml").write_text("[serve]\nworker = 2\n")
    assert "[serve] worker is unknown" in doctor(ECHO, code=2)[0]


def test_a_credential_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_KEY", KEY)
    Path("own.toml").write_text(
        f'[models.far]\naddress = "http://127.0.0.1:9/v2/models/x"\nheaders = {{ "x-token" = "{KEY}" }}\n'
        '[credentials."http://127.0.0.1:9"]\napi_key_env = "HOST_KEY"\n'
    )
    monkeypatch.setenv("AIAAS_CONFIG", "own.toml")
    text, found = doctor("far", code=4)
    member = found["members"][0]
    assert member["credential"] == "environment variable HOST_KEY"
    assert {"name": "api_key", "value": "***", "source": "environment variable HOST_KEY"} in member["settings"]
    assert "x-token: ***" in text
    assert "ok      credential: environment variable HOST_KEY" in text
    assert "FAILED  open: can't connect" in text
    monkeypatch.setenv("HOST_KEY", "")
    assert "FAILED  credential: the environment variable HOST_KEY is empty" in doctor("far", code=2)[0]


def test_each_member_of_a_route_is_examined() -> None:
    Path("aiaas.toml").write_text('[models]\nsafe = ["torch:nowhere", "echo:?x=FP32[-1,3]"]\n')
    text, found = doctor("safe", code=3)
    assert [member["backend"] for member in found["members"]] == ["torch", "echo"]
    assert [member["steps"][-1]["ok"] for member in found["members"]] == [False, True]
    assert "FAILED  load" in text


def test_wrong_settings_are_the_first_failure() -> None:
    Path("aiaas.toml").write_text("[models\n")
    text, found = doctor(ECHO, code=2)
    assert "FAILED  settings" in text
    assert found["members"] == []
    assert found["steps"][0]["error"]["type"] == "ConfigError"


def test_a_name_that_nothing_defines_comes_with_what_to_do() -> None:
    text, _ = doctor("nosuchname", code=2)
    assert "FAILED  address: 'nosuchname' is a bare name" in text
    assert "AIAAS_MODEL_NOSUCHNAME=ADDRESS" in text


def test_a_call_that_cannot_be_built_is_left_out_and_said() -> None:
    assert "call: not tried: it doesn't say what it takes" in doctor("echo:")[0]
    assert "call: not tried: its inputs are too large" in doctor("echo:?x=FP32[999999,999999]")[0]


def test_a_bundle_tells_its_version_and_device() -> None:
    pytest.importorskip("torch")
    aiaas.create("torch:kinds", architecture="mlp", inputs={"x": ("FP32", (-1, 3))}, seed=1).close()
    text, found = doctor("torch:kinds", "--device", "cpu")
    assert "open: kinds, version 1, device cpu, pytorch_module" in text
    assert found["members"][0]["timing"]["compute"] > 0


WITHOUT = """
import sys
for name in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
    sys.modules[name] = None
from aiaas_sdk.cli import main
main()
"""


@pytest.mark.parametrize("table", ["", "[serve]\nport = 9000\n"])
def test_it_needs_nothing_of_what_serves(table: str) -> None:
    Path("aiaas.toml").write_text(table)
    command = [sys.executable, "-c", WITHOUT, "doctor", ECHO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "call: zeros in" in done.stdout
    told = "ok      serve: its settings weren't looked at; serving needs the package starlette"
    assert (told in done.stdout) == bool(table)
