"""A real MLflow scoring server, with several models under one port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiaas_sdk.testing.processes import answers, free_port, server_process

SERVER = '''
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import mlflow.pyfunc
import numpy as np
import pandas as pd
import uvicorn
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, Schema, TensorSpec
from starlette.applications import Starlette
from starlette.routing import Mount


class Act(mlflow.pyfunc.PythonModel):
    """A model that does what it was made with."""

    def __init__(self, act):
        self.act = act

    def predict(self, context, model_input, params=None):
        return self.act(model_input)


def double(inputs):
    """x -> y = 2 x, an array to an array; -999 is its own fault."""
    x = np.asarray(inputs["x"] if isinstance(inputs, dict) else inputs)
    if x.size and x.flat[0] == -999:
        raise ValueError("this model's own fault")
    return {"y": 2 * x} if isinstance(inputs, dict) else 2 * x


def slow(inputs):
    time.sleep(0.6)
    return double(inputs)


def kinds(inputs):
    """What came: of each input its dtype."""
    if isinstance(inputs, pd.DataFrame):
        return ["frame", *(f"{name} {dtype}" for name, dtype in inputs.dtypes.items())]
    return [f"{name} {array.dtype} {list(array.shape)}" for name, array in inputs.items()]


def same(inputs):
    return inputs


def columns(inputs):
    """A DataFrame from a DataFrame: the sum, missing for a negative one, and a word."""
    total = inputs["a"] + inputs["b"]
    return pd.DataFrame({"sum": total.where(total >= 0), "word": inputs["word"] + "!"})


def odd(inputs):
    return [[1, 2], [3]] if inputs.size == 1 else [{"a": {"b": 1}}]


tensor = lambda dtype, shape, name: TensorSpec(np.dtype(dtype), shape, name)
MODELS = {
    "double": (double, None),
    "slow": (slow, None),
    "kinds": (kinds, None),
    "same": (same, None),
    "odd": (odd, None),
    "typed": (kinds, Schema([tensor("float32", (-1, 3), "x"), tensor("int64", (-1, 1), "n")])),
    "table": (columns, Schema([ColSpec("double", "a"), ColSpec("double", "b"), ColSpec("string", "word")])),
}
routes = []
for name, (act, inputs) in MODELS.items():
    signature = inputs and ModelSignature(inputs)
    mlflow.pyfunc.save_model(name, python_model=Act(act), signature=signature, pip_requirements=[])
    routes.append(Mount(f"/{name}", scoring_server.init(mlflow.pyfunc.load_model(name))))
uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
'''


@pytest.fixture(scope="session")
def scoring(peer_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow+http://HOST:PORT` of MLflow's scoring server: each model below a path of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "server.py").write_text(SERVER)
    port = free_port()
    command, quiet = [peer_python("mlflow"), "server.py", str(port)], {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with server_process(command, folder, answers(f"http://127.0.0.1:{port}/double/ping"), quiet):
        yield f"mlflow+http://127.0.0.1:{port}"
