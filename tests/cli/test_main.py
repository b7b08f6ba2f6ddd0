"""The installed command, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

AIAAS = Path(sys.executable).with_name("aiaas")
ECHO = "echo:?x=FP32[-1,3]"


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AIAAS), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_a_pipe_in_and_out(tmp_path: Path) -> None:
    done = run(tmp_path, "predict", ECHO, "-", input="[[1, 2, 3]]")
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"x": [[1.0, 2.0, 3.0]]}\n', "")


def test_help_and_backends_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'httpx', 'uvicorn', 'PIL'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "sys.argv[1:] = ['backends']\n"
        "from aiaas_sdk.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_without_its_packages_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys\nsys.modules['typer'] = None\nfrom aiaas_sdk.cli import main\nmain()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == 'aiaas: the command line needs typer; install it: pip install "aiaas-sdk[cli]"\n'


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_exits_with_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(AIAAS), "predict", ECHO, "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True,
    )  # fmt: skip
    time.sleep(1.0)  # it waits for its input now
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "aiaas: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((50_000, 3), np.float32))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [str(AIAAS), "predict", ECHO, "x.npy"],
            cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_bundle_from_the_shell(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    aiaas.create(
        f"torch:{tmp_path / 'kinds'}", architecture="mlp", inputs={"x": ("FP32", (-1, 3))}, labels=["cat", "dog"]
    ).close()
    np.save(tmp_path / "x.npy", np.ones((70, 3), np.float32))
    done = run(tmp_path, "predict", "torch:kinds", "x.npy", "-o", "y.npz")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with np.load(tmp_path / "y.npz") as found:
        assert found["logits"].shape == (70, 2)
    compared = run(tmp_path, "compare", "torch:kinds", "./kinds", "x.npy", "--repeat", "3", "--json")
    assert compared.returncode == 0
    assert json.loads(compared.stdout)["max_abs"] == 0
    named = run(tmp_path, "doctor", "kinds", env={**os.environ, "AIAAS_MODEL_KINDS": "torch:kinds"})
    assert named.returncode == 0
    assert "environment variable AIAAS_MODEL_KINDS" in named.stdout
