"""MLflow's own client of a scoring server against `/invocations`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread

pytestmark = [pytest.mark.slow, pytest.mark.peer]

PROGRAM = """
import json, sys
import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

one, table = (ScoringServerClient("127.0.0.1", int(port)) for port in sys.argv[1:])
told = {}
one.wait_server_ready(timeout=20)
told["version"] = one.get_version()
x = np.arange(6, dtype=np.float32).reshape(2, 3)
told["array"] = one.invoke(x, params={"ignored": 1})["predictions"]
told["dict"] = one.invoke(json.dumps({"inputs": {"x": x.tolist()}}))["predictions"]
told["frame"] = one.invoke(pd.DataFrame(x, columns=["a", "b", "c"])).get_predictions().values.tolist()
frame = pd.DataFrame({"n": [1, 2], "s": ["u", "v"]})
told["columns"] = table.invoke(frame).get_predictions().to_dict("list")
try:
    one.invoke(x[:, :2])
except Exception as error:
    told["error"] = str(error)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    folder = tmp_path_factory.mktemp("mlflow")
    (program := folder / "program.py").write_text(PROGRAM)
    # it looks whether there is scipy.sparse, and fails where there is no scipy to look into
    (folder / "scipy").mkdir()
    (folder / "scipy" / "__init__.py").touch()
    with (
        serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as one,
        serve_in_thread(["ns=echo:?n=INT64[-1]&s=BYTES[-1]"]) as ns,
    ):
        ports = [url.rpartition(":")[2] for url in (one, ns)]
        command = [str(peer_python("mlflow")), str(program), *ports]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_arrays_and_tables(told: dict[str, Any]) -> None:
    assert told["version"] == aiaas.__version__
    assert told["array"] == told["dict"] == told["frame"] == [[0, 1, 2], [3, 4, 5]]
    assert told["columns"] == {"n": [1, 2], "s": ["u", "v"]}


def test_an_error_can_be_read(told: dict[str, Any]) -> None:
    assert "400" in told["error"]
    assert "BAD_REQUEST" in told["error"]
    assert "shape" in told["error"]
