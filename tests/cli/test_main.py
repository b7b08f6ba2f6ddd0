"""The installed command, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.parity import compare

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
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/models/x"
        process = subprocess.Popen(
            [str(AIAAS), "info", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
        )
        connection, _ = silent.accept()  # it waits for an answer now
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, out, err) == (130, "", "aiaas: interrupted\n")


@pytest.mark.slow
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


@contextmanager
def serving(folder: Path, target: str) -> Iterator[str]:
    """The URL of `aiaas serve`; it is asked to stop at the end, and must do so with 0."""
    command = [str(AIAAS), "serve", target, "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            assert told["models"] == [target.partition("=")[0]]
            yield told["url"]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_model_is_served_called_and_compared(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((40, 3), np.float32))
    with serving(tmp_path, f"same={ECHO}") as url:
        address = f"{url}/v2/models/same"
        assert run(tmp_path, "predict", address, "x.npy", "-o", "y.npy").returncode == 0
        assert np.load(tmp_path / "y.npy").shape == (40, 3)
        assert "equal within" in run(tmp_path, "compare", ECHO, address, "x.npy", "--repeat", "2").stdout
        assert "ok      call: zeros in, x [1, 3] out" in run(tmp_path, "doctor", address).stdout
        assert run(tmp_path, "info", f"{url}/v2/models/other").returncode == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_is_served_equals_the_bundle_and_another_version_is_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from aiaas_sdk.architectures.mlp import MLP

    rows = np.ones((4, 3), np.float32)
    np.save(tmp_path / "x.npy", rows)
    for seed in (1, 2):
        torch.manual_seed(seed)
        aiaas.save(MLP(features=3, classes=2), tmp_path / "kinds", example=rows, labels=["cat", "dog"])
    with serving(tmp_path, "kinds=torch:kinds@1") as url:
        address = f"{url}/v2/models/kinds"
        same = compare(f"torch:{tmp_path / 'kinds'}@1", address, rows, repeat=1)
        assert same.equal
        assert {fact.state for fact in same.facts} == {"same"}
        other = compare(f"torch:{tmp_path / 'kinds'}", address, rows, repeat=0)
    assert not other.equal
    assert [cause.partition(":")[0] for cause in other.causes] == ["version", "digest"]
