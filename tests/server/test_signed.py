"""Serving with verify=: only what one of the keys has signed, at the start and whenever something new comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import aiaas_sdk as aiaas
from aiaas_sdk.bundle import SigningKey
from tests.server.bundles import ask, save, until
from tests.server.conftest import Client
from tests.server.test_updates import WATCH, index, served
from tests.server.training import begin, create, ended, upload

MAKER = SigningKey(bytes(range(32)))
UNSIGNED = "model {!r}: its files aren't what its manifest says, or not signed as asked (the server's log has more)"


def put(folder: Path, key: SigningKey | None) -> str:
    """The next version, signed by a key or by nobody before it is in its place; its number."""
    aside = folder.parent.parent / "aside" / folder.name
    aside.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("[0-9]*"):
        (aside / earlier.name).mkdir(exist_ok=True)  # so that the next number is the right one
    version = save(aside)
    (aside / version / "model.sig").unlink()
    if key is not None:
        sign(aside / version, key)
    folder.mkdir(parents=True, exist_ok=True)
    (aside / version).rename(folder / version)
    return version


def sign(version: Path, key: SigningKey) -> None:
    (version / "model.sig").write_bytes(key.sign((version / "model.json").read_bytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of bundles with one, `m`, whose only version is signed."""
    put(tmp_path / "models" / "m", MAKER)
    return tmp_path / "models"


@pytest.fixture
def start(folder: Path, serving: Callable[..., Client]) -> Callable[..., Client]:
    return lambda **options: serving(str(folder), watch=WATCH, verify=[MAKER.public], **options)


def test_d05_what_isnt_signed_as_asked_isnt_served(folder: Path, serving: Callable[..., Client]) -> None:
    with pytest.raises(aiaas.IntegrityError, match="whom verify doesn't name"):
        serving(str(folder), verify=[SigningKey(os.urandom(32)).public])
    (folder / "m" / "1" / "model.sig").unlink()
    with pytest.raises(aiaas.IntegrityError, match="isn't signed"):
        serving(str(folder), verify=[MAKER.public])
    assert served(serving(str(folder))) == "1"  # nobody asks


@pytest.mark.parametrize("key", [None, SigningKey(bytes(32))], ids=["unsigned", "a stranger's"])
def test_d05_a_new_version_that_lacks_the_signature_leaves_the_old_one_serving(
    folder: Path, start: Any, key: SigningKey | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = start()
    assert served(client) == "1"
    put(folder / "m", key)
    until(lambda: "m@2" in index(client) and index(client)["m@2"][1] is not None)
    assert served(client) == "1"
    assert index(client)["m@1"] == ("READY", None)
    assert index(client)["m@2"] == ("UNAVAILABLE", UNSIGNED.format("m"))
    assert ask(client, "m/versions/2").status >= 400
    assert client("GET", "/v2/health/ready").status == 200
    assert ("isn't signed" if key is None else "whom verify doesn't name") in caplog.text  # for the operator
    sign(folder / "m" / "2", MAKER)  # late, but signed
    until(lambda: served(client) == "2")


def test_d05_a_new_model_that_lacks_the_signature_isnt_served(folder: Path, start: Any) -> None:
    client = start()
    put(folder / "other", None)
    until(lambda: index(client).get("other@1", ("", None))[0] == "UNAVAILABLE")
    assert index(client)["other@1"][1] == UNSIGNED.format("other")
    assert ask(client, "other").status == 503
    assert served(client) == "1"


def test_trusted_keys_in_the_settings_ask_for_nothing(folder: Path, serving: Callable[..., Client]) -> None:
    """They go through the server to each version that it opens, and stay what they are."""
    home = Path(os.environ["AIAAS_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "aiaas.toml").write_text(f'trust.keys = ["{MAKER.public}"]')
    client = serving(str(folder), watch=WATCH)
    put(folder / "m", None)
    until(lambda: served(client) == "2")


# ---------------------------------------------------------------- jobs
@pytest.mark.slow
def test_what_a_job_makes_is_served(tmp_path: Path, serving: Callable[..., Client]) -> None:
    """The server's own key has signed it."""
    models = create(tmp_path)
    sign(models / "iris" / "1", MAKER)
    client = serving(str(models), watch=WATCH, jobs=tmp_path / "jobs", verify=[MAKER.public])
    assert ended(client, begin(client, upload(client)).document["id"])["status"] == "succeeded"
    until(lambda: index(client).get("iris@2") == ("READY", None))


# ---------------------------------------------------------------- the command
def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    told = "import tests.server.bundles; from aiaas_sdk.cli.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", told, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "AIAAS_HOME": str(folder)},
    )  # fmt: skip


@pytest.mark.slow
def test_verify_in_the_settings_asks_of_the_commands_too(folder: Path, tmp_path: Path) -> None:
    stranger = SigningKey(os.urandom(32)).public
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "aiaas.toml").write_text(
        f'serve.verify = ["{stranger}"]\n[models.m]\naddress = "torch:{folder / "m"}"\nverify = ["{MAKER.public}"]\n'
    )
    refused = command("serve", str(folder), "--port", "0", folder=tmp_path / "own")
    assert refused.returncode != 0
    assert "whom verify doesn't name" in refused.stderr
    told = command("info", "m", "--json", folder=tmp_path / "own")
    assert json.loads(told.stdout)["metadata"]["signed_by"] == MAKER.public, told.stderr
    (folder / "m" / "1" / "model.sig").unlink()
    told = command("info", "m", folder=tmp_path / "own")
    assert told.returncode != 0
    assert "isn't signed, and verify asks for a signature" in told.stderr
