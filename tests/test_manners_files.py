"""What is written on the disk, and that it is nothing else than docs/manners.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiaas_sdk.testing import FaultServer, faults

ROOT = Path(__file__).parent.parent

WATCH = """
import asyncio, json, os, sys
import numpy as np

written = set()

def watch(event, args):
    if event == "open" and not isinstance(args[0], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.add(os.fsdecode(args[0]))
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate"):
        written.update(os.fsdecode(path) for path in args[:2] if isinstance(path, (str, bytes, os.PathLike)))

"""

USE = (
    WATCH
    + """
sys.addaudithook(watch)
import aiaas_sdk as aiaas
x = np.ones((2, 3), np.float32)
for address in sys.argv[1:]:
    with aiaas.load(address, timeout=20) as model:
        model.info(), model.ready(), model.predict(x), list(model.map(x))
        model.with_options(timeout=5, hedge=aiaas.Hedge(delay=1)).predict(x)
        try:
            model.predict("x")
        except aiaas.InputError:
            pass

    async def use():
        async with aiaas.load_async(address) as model:
            await model.predict(x)

    asyncio.run(use())
aiaas.available_backends()
try:
    aiaas.load("nowhere")
except aiaas.AddressError:
    pass
print(json.dumps(sorted(written)))
"""
)

SAVE = (
    WATCH
    + """
import aiaas_sdk as aiaas
import torch
module = torch.nn.Linear(3, 2)
sys.addaudithook(watch)
aiaas.save(module, sys.argv[1], example=np.ones((1, 3), np.float32))
print(json.dumps(sorted(written)))
"""
)


def run(code: str, *arguments: str, folder: Path) -> list[str]:
    temporary = folder / "temporary"  # PyTorch looks for a place for its compiler's cache
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # which PyTorch sets, perhaps in this very process
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    written: list[str] = json.loads(done.stdout.splitlines()[-1])
    return written


def test_calling_writes_nothing(tmp_path: Path) -> None:
    with FaultServer() as server:
        server.on("predict", faults.status(503), faults.cut("body"))
        assert run(USE, server.address, "echo:?x=FP32[-1,3]", folder=tmp_path) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.mark.slow
def test_a_bundle_is_read_and_not_written_and_saving_writes_it_and_the_users_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    models, home = tmp_path / "models", tmp_path / "home"
    monkeypatch.setenv("AIAAS_HOME", str(home))
    written = run(SAVE, str(models / "line"), folder=tmp_path)
    assert [path for path in written if not under(path, models, home, tmp_path / "temporary")] == []
    assert {path.name for path in home.iterdir()} == {"signing.key"}
    assert {path.name for path in models.iterdir()} == {"line"}
    before = times(models, home)
    written = run(USE, str(models / "line"), folder=tmp_path)
    assert [path for path in written if not under(path, tmp_path / "temporary")] == []
    assert times(models, home) == before


def times(*folders: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


def under(path: str, *folders: Path) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
