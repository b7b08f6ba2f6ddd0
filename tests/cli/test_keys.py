"""`aiaas keys`: the file that it writes, and the key that is shown once."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aiaas_sdk.cli.app import app
from aiaas_sdk.server.keys import KeyFile, keys_in


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_is_shown_once_and_kept_hashed(file: Path) -> None:
    result = run("add", "alice", "--file", str(file))
    key = result.stdout.strip()
    assert key.startswith("aiaas_")
    assert len(key) == 49  # 256 bits
    assert "can't be shown again" in result.stderr
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = KeyFile(file).caller(key)
    assert found is not None
    assert (found.name, found.models, found.management) == ("alice", None, False)
    listed = run("list", "--file", str(file))
    assert "alice" in listed.stdout
    assert key not in listed.output
    assert keys_in(file)[0].digest.hex() not in listed.output


def test_what_it_may_do_is_written_and_read_again(file: Path) -> None:
    run(
        "add", "bob@example", "-f", str(file), "--models", "digits, llm-*", "--days", "30",
        "--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrency", "4",
        "--queue-share", "0.25", "--management", "--training", "--metrics",
    )  # fmt: skip
    run("add", "none", "-f", str(file), "--models", "")
    told = {row["name"]: row for row in json.loads(run("list", "-f", str(file), "--json").stdout)}
    bob = told["bob@example"]
    assert bob["models"] == ["digits", "llm-*"]
    assert bob["expires"] > bob["created"]
    assert (bob["requests_per_minute"], bob["tokens_per_minute"]) == (60, 1000)
    assert (bob["concurrency"], bob["queue_share"]) == (4, 0.25)
    assert bob["management"] is bob["training"] is bob["metrics"] is True
    assert told["none"]["models"] == []
    assert told["none"]["training"] is False
    assert told["none"]["expired"] is False


def test_a_key_is_removed_and_no_other(file: Path) -> None:
    keys = {name: run("add", name, "-f", str(file)).stdout.strip() for name in ("a", "b", "c")}
    run("remove", "b", "-f", str(file))
    held = KeyFile(file)
    assert [name for name, key in keys.items() if held.caller(key) is not None] == ["a", "c"]
    assert [path.name for path in file.parent.iterdir() if path.suffix != ".toml"] == []


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "keys.toml"
    os.symlink(real, file)
    run("add", "alice", "-f", str(file))
    run("add", "bob", "-f", str(file))
    assert file.is_symlink()
    assert len(keys_in(real)) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "alice"], "has a key 'alice' already"),
        (["add", "a b"], "can't be the name"),
        (["add", "x", "--requests-per-minute", "0"], "requests_per_minute is 0"),
        (["add", "x", "--queue-share", "1.5"], "queue_share is 1.5"),
        (["add", "x", "--days", "-1"], "isn't a number of days"),
        (["remove", "nobody"], "no key 'nobody'"),
    ],
)
def test_a_wrong_one_changes_nothing(file: Path, arguments: list[str], told: str) -> None:
    run("add", "alice", "-f", str(file))
    before = file.read_text()
    result = run(*arguments, "-f", str(file), code=2)
    assert told in result.stderr
    assert result.stdout == ""
    assert file.read_text() == before


def test_a_file_of_something_else_isnt_overwritten(file: Path) -> None:
    file.write_text("[serve]\nport = 1\n")
    run("add", "alice", "-f", str(file), code=2)
    assert file.read_text() == "[serve]\nport = 1\n"


def test_a_folder_that_isnt_there_is_told(tmp_path: Path) -> None:
    result = run("add", "alice", "-f", str(tmp_path / "no" / "keys.toml"), code=2)
    assert "can't be written" in result.stderr


def test_one_document_for_programs(file: Path) -> None:
    told: dict[str, Any] = json.loads(run("add", "alice", "-f", str(file), "--json").stdout)
    assert KeyFile(file).caller(told["key"]) is not None
    assert told["name"] == "alice"
