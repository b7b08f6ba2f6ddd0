"""The real tritonclient.http against this server: every datatype both ways, selections, packing, errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread

pytestmark = [pytest.mark.slow, pytest.mark.peer]

PROGRAM = """
import json, sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

told = {}
client = triton.InferenceServerClient(sys.argv[1])
SAMPLES = {
    "BOOL": [True, False, True],
    "FP16": [0.5, -1, 65504], "FP32": [1.5, -2, 3e38], "FP64": [1.5, -2, 1e300],
    "BYTES": [b"\\xff\\x00", b"", b"a\\x00"],
}
NUMPY = {"BOOL": bool, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": object}
for kind in ("int", "uint"):
    for bits in (8, 16, 32, 64):
        name = f"{kind.upper()}{bits}"
        NUMPY[name] = getattr(np, f"{kind}{bits}")
        limits = np.iinfo(NUMPY[name])
        SAMPLES[name] = [limits.min, 1, limits.max]

try:
    import ml_dtypes
    NUMPY["BF16"], SAMPLES["BF16"] = ml_dtypes.bfloat16, [1.0, -2.5, 3e38]
except ImportError:
    pass


def infer(model, arrays, binary, outputs=None, **options):
    inputs = []
    for name, (datatype, array) in arrays.items():
        given = triton.InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array, binary_data=binary)
        inputs.append(given)
    return client.infer(model, inputs, outputs=outputs, **options)


def error(call):
    try:
        call()
    except InferenceServerException as raised:
        return [raised.status(), raised.message()]
    return None


def alike(one, other):
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


told["live"], told["ready"] = client.is_server_live(), client.is_server_ready()
told["model"] = [client.is_model_ready("any"), client.is_model_ready("any", "1"), client.is_model_ready("none")]
told["server"], told["metadata"] = client.get_server_metadata(), client.get_model_metadata("one", "1")
told["index"] = client.get_model_repository_index()

told["types"] = {}
for datatype, values in SAMPLES.items():
    array = np.array(values, NUMPY[datatype])
    ways = [True] if datatype in ("FP16", "BF16") else [True, False]
    for binary in ways:
        if datatype == "BYTES" and not binary:
            array = np.array([b"text", "\\u00fc".encode(), b""], object)
        for shape in ((3,), (1, 3), (3, 1, 1)):
            sent = array.reshape(shape)
            for wish in (None, True) if datatype in ("FP16", "BF16", "BYTES") else (None, True, False):
                outputs = None if wish is None else [triton.InferRequestedOutput("x", binary_data=wish)]
                back = infer("any", {"x": (datatype, sent)}, binary, outputs).as_numpy("x")
                same = list(back.ravel()) == list(sent.ravel()) if datatype == "BYTES" else alike(back, sent)
                told["types"].setdefault(datatype, []).append(bool(same and back.shape == sent.shape))
    empty = infer("any", {"x": (datatype, np.empty((0, 2), NUMPY[datatype]))}, True)
    told["types"][datatype].append(list(empty.get_output("x")["shape"]) == [0, 2])

x = np.arange(6, dtype=np.float32).reshape(2, 3)
pair = {"x": ("FP32", x), "s": ("BYTES", np.array([b"a", b"\\xff"], object))}
chosen = infer("pair", pair, True, [triton.InferRequestedOutput("s")], request_id="r-1")
told["chosen"] = [chosen.as_numpy("x") is None, [v.hex() for v in chosen.as_numpy("s")], chosen.get_response()["id"]]
told["version"] = infer("one", {"x": ("FP32", x)}, True, model_version="1").get_response()["model_version"]
told["timeout"] = infer("one", {"x": ("FP32", x)}, True, timeout=5_000_000).as_numpy("x").tolist()
WAYS = (None, "gzip", "deflate")
many = np.arange(3000, dtype=np.float32).reshape(-1, 3)
told["packed"] = []
for there in WAYS:
    for back in WAYS:
        for binary in (True, False):
            for wish in ([triton.InferRequestedOutput("x", binary_data=True)],
                         [triton.InferRequestedOutput("x", binary_data=False)], None):
                answer = infer("one", {"x": ("FP32", many)}, binary, wish, request_compression_algorithm=there,
                               response_compression_algorithm=back)
                told["packed"].append([there, back, binary, alike(answer.as_numpy("x"), many)])
best = infer("one", {"x": ("FP32", x)}, True, [triton.InferRequestedOutput("x", class_count=2)])
told["classes"] = [[v.decode() for v in row] for row in best.as_numpy("x")]
told["config"] = client.get_model_config("one")
told["statistics"] = client.get_inference_statistics("one")
large = np.random.default_rng(0).random((1_000_000, 3), dtype=np.float32)
told["large"] = alike(infer("one", {"x": ("FP32", large)}, True).as_numpy("x"), large)

told["errors"] = {
    "model": error(lambda: client.get_model_metadata("none")),
    "version": error(lambda: infer("one", {"x": ("FP32", x)}, True, model_version="9")),
    "shape": error(lambda: infer("one", {"x": ("FP32", x[:, :2].copy())}, True)),
    "name": error(lambda: infer("one", {"y": ("FP32", x)}, False)),
    "datatype": error(lambda: infer("one", {"x": ("INT32", x.astype(np.int32))}, True)),
    "output": error(lambda: infer("one", {"x": ("FP32", x)}, True, [triton.InferRequestedOutput("z")])),
    "load": error(lambda: client.load_model("one")),
}
client.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(triton_env: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    program = tmp_path_factory.mktemp("triton") / "program.py"
    program.write_text(PROGRAM)
    with serve_in_thread(["any=echo:", "pair=echo:?x=FP32[-1,3]&s=BYTES[-1]", "one=echo:?x=FP32[-1,3]"]) as url:
        command = [str(triton_env), str(program), url.removeprefix("http://")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_health_metadata_and_index(told: dict[str, Any]) -> None:
    assert (told["live"], told["ready"], told["model"]) == (True, True, [True, True, False])
    assert told["server"]["name"] == "aiaas"
    assert told["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert {"name": "one", "version": "1", "state": "READY"} in told["index"]


def test_every_datatype_goes_both_ways(told: dict[str, Any]) -> None:
    whole = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
    assert set(told["types"]) >= whole | {"BOOL", "FP16", "FP32", "FP64", "BYTES", "BF16"}
    assert {name: all(ways) for name, ways in told["types"].items()} == dict.fromkeys(told["types"], True)


def test_selections_versions_and_ids(told: dict[str, Any]) -> None:
    assert told["chosen"] == [True, ["61", "ff"], "r-1"]
    assert told["version"] == "1"
    assert told["timeout"] == [[0, 1, 2], [3, 4, 5]]


def test_packed_both_ways_with_any_form_of_tensors(told: dict[str, Any]) -> None:
    assert len(told["packed"]) == 54
    assert [case for case in told["packed"] if case[-1] is not True] == []


def test_classes_config_and_statistics(told: dict[str, Any]) -> None:
    assert told["classes"] == [["2.0:2", "1.0:1"], ["5.0:2", "4.0:1"]]
    assert told["config"]["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
    assert told["config"]["max_batch_size"] > 0
    [statistics] = told["statistics"]["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("one", "1")
    assert statistics["inference_count"] > 1000


def test_a_large_tensor(told: dict[str, Any]) -> None:
    assert told["large"]


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("model", "404", "none"),
        ("version", "404", "9"),
        ("shape", "400", "shape"),
        ("name", "400", "y"),
        ("datatype", "400", "INT32"),
        ("output", "400", "z"),
        ("load", "403", "management"),
    ],
)
def test_errors_can_be_read(told: dict[str, Any], name: str, status: str, says: str) -> None:
    assert told["errors"][name][0] == status
    assert says in told["errors"][name][1]
