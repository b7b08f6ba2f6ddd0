"""Several processes give the numbers of one, whatever is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.training.ranks import Alone
from tests.training.modules import Twofold, weights
from tests.training.together import CASES, train
from tests.training.worker_modules import Level

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    """All cases, by three processes that torchrun started: a batch may have fewer rows."""
    folder = tmp_path_factory.mktemp("together")
    address = f"torch:{folder / 'model-'}"
    torch.manual_seed(0)
    for kind in ("normed", "plain"):
        aiaas.save(Level(kind == "normed"), folder / f"model-{kind}", example=torch.zeros(2, 4))
    aiaas.save(Twofold(), folder / "model-twofold", example={"a": torch.zeros(2, 4), "b": torch.zeros(2, 3)})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ran = subprocess.run(
        [*command, "tests.training.together", address, str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    return address, folder, json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(CASES))
def test_three_processes_equal_one(trained: tuple[str, Path, dict[str, Any]], name: str) -> None:
    address, folder, found = trained
    made, history = found[name]
    alone, wanted = train(address, name, Alone(), folder)
    assert history.keys() == wanted.keys()
    for key, values in wanted.items():
        assert history[key] == pytest.approx(values, abs=1e-6), key
    assert alone
    there, here, before = weights(made), weights(alone), weights(alone.rpartition("@")[0] + "@1")
    for key, tensor in here.items():
        assert np.abs(there[key] - tensor).max() <= 1e-6, key
    assert any(np.abs(before[key] - tensor).max() > 1e-4 for key, tensor in here.items())
