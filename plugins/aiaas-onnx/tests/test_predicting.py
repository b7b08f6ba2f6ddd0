"""Predictions of ONNX models: every datatype, free axes, labels, several outputs, threads, children."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from aiaas_onnx import devices
from aiaas_onnx.runtime import onnxruntime
from onnx import helper

import aiaas_sdk as aiaas

Load = Any
Put = Callable[..., str]

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "FP16": np.array([[1.5, -np.inf, np.nan]], np.float16),
    "FP32": np.array([[1.5, -np.inf, np.nan]], np.float32),
    "FP64": np.array([[1e300, -0.0, np.nan]]),
    "BF16": np.array([[1.5, -np.inf, np.nan]], np.float32),
    "BYTES": np.array([["Zürich".encode(), b"", b"a\0b\0"]], object),
    **{
        name: np.array([[np.iinfo(dtype).min, 1, np.iinfo(dtype).max]], dtype)
        for name, dtype in {
            "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
            "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("datatype", sorted(VALUES))
def test_every_datatype_goes_in_and_comes_out(load: Load, put: Put, graphs: SimpleNamespace, datatype: str) -> None:
    given = VALUES[datatype]
    with load(put(graphs.identity(datatype))) as model:
        assert [(s.name, s.datatype, s.shape) for s in model.info().inputs] == [("x", datatype, (-1, 3))]
        found = model.predict(given)["y"]
        assert found.dtype == given.dtype
        np.testing.assert_array_equal(found, given)
        assert model.predict(given[:0])["y"].shape == (0, 3)
        assert model.predict(np.repeat(given, 1000, axis=0))["y"].shape == (1000, 3)


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_an_answer_stays_what_it_is(put: Put, graphs: SimpleNamespace, datatype: str) -> None:
    """Later calls don't write into the memory of earlier answers."""
    with aiaas.load(put(graphs.identity(datatype))) as model:
        answers = [model.predict(np.full((2000, 3), turn, np.float32)).tensors["y"].array for turn in range(20)]
        assert [len(set(answer.ravel().tolist())) for answer in answers] == [1] * 20
        assert len({answer.flat[0] for answer in answers}) == 20


def test_free_axes_are_free_and_others_are_not(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    made = graphs.identity(shape=("rows", 2, None, "width"))
    with load(put(made)) as model:
        assert model.info().inputs[0].shape == (-1, 2, -1, -1)
        assert model.predict(np.zeros((3, 2, 5, 1), np.float32))["y"].shape == (3, 2, 5, 1)
        with pytest.raises(aiaas.InputError, match=r"input 'x'.*shape"):
            model.predict(np.zeros((3, 4, 5, 1), np.float32))
        with pytest.raises(aiaas.InputError, match="float64"):
            model.predict(np.zeros((3, 2, 5, 1)))


def test_scalars_state_and_chosen_outputs(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    """A network that carries state: no free first axis, an integer without axes, two outputs."""
    value = graphs.value
    made = graphs.model(
        [
            helper.make_node("Cast", ["rate"], ["r"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["state", "r"], ["next"]),
            helper.make_node("ReduceSum", ["state"], ["total"], keepdims=0),
        ],
        [value("state", "FP32", [2, "rows", 4]), value("rate", "INT64", [])],
        [value("next", "FP32", [2, "rows", 4]), value("total", "FP32", [])],
    )
    given = {"state": np.ones((2, 3, 4), np.float32), "rate": np.int64(16)}
    with load(put(made)) as model:
        both = model.predict(given)
        assert both["total"].shape == ()
        assert both["total"] == 24
        np.testing.assert_array_equal(both["next"], np.full((2, 3, 4), 16, np.float32))
        assert set(model.predict(given, outputs=["total"])) == {"total"}
        assert not model.info().rows_free


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"labels": '["cat", "dog", "é"]'}, ("cat", "dog", "é")),
        ({"names": "{0: 'cat', 1: 'dog', 2: 'é'}"}, ("cat", "dog", "é")),
        ({"labels": '{"1": "dog", "0": "cat", "2": "é"}'}, ("cat", "dog", "é")),
        ({"labels": "__import__('os').getpid()"}, None),
        ({"names": "{7: 'cat'}"}, None),
        ({"labels": "cat"}, None),
        ({}, None),
    ],
)
def test_labels_are_in_the_metadata(put: Put, graphs: SimpleNamespace, metadata: Any, labels: Any) -> None:
    with aiaas.load(put(graphs.identity(shape=("rows", 3), **metadata))) as model:
        assert model.info().labels == labels
        if labels:
            scores = np.array([[0.1, 0.2, 0.7]], np.float32)
            assert model.predict(scores).top(1)[0][0][0] == "é"


def test_other_metadata_is_told(put: Put, graphs: SimpleNamespace) -> None:
    address = put(graphs.identity(author="somebody"), "named.onnx")
    with aiaas.load(address, device="cpu") as model:
        info = model.info()
    assert (info.name, info.version, info.platform, info.device) == ("named", None, "onnxruntime_onnx", "cpu")
    assert info.metadata["author"] == "somebody"
    assert info.metadata["opset"] == {"ai.onnx": 20}
    assert info.metadata["digest"].startswith("sha256:")
    assert info.verbs == {"predict", "explain"}


def test_large_arrays_are_not_copied(put: Put, graphs: SimpleNamespace) -> None:
    """64 MiB in, 64 MiB out: no more is taken than the answer itself."""
    made = graphs.model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [graphs.value("x", "FP32", ["n"])],
        [graphs.value("y", "FP32", ["n"])],
    )
    code = """
        import resource, sys, numpy as np, aiaas_sdk as aiaas
        x = np.ones(16 << 20, np.float32)
        with aiaas.load(sys.argv[1]) as model:
            model.predict(x[:1000])
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            y = model.predict(x)["y"]
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert y[0] == -1 and y.flags.writeable
        assert grown < 80, f"{grown} MiB"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), put(made)], check=True, timeout=60)


def test_a_tensor_of_torch_comes_back_as_one(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    torch = pytest.importorskip("torch")
    with load(put(graphs.affine())) as model:
        given = torch.ones(2, 3)
        found = model.predict(given)["y"]
        assert isinstance(found, torch.Tensor)
        expected = model.predict(given.numpy())["y"]
        np.testing.assert_array_equal(found.numpy(), expected)
        # a view that isn't contiguous is understood by its values
        turned = torch.arange(6.0).reshape(3, 2).T
        np.testing.assert_array_equal(model.predict(turned)["y"], model.predict(turned.contiguous().numpy())["y"])


def test_texts_that_are_none_are_refused(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    with load(put(graphs.identity("BYTES"))) as model, pytest.raises(aiaas.InputError, match=r"'x'.*UTF-8"):
        model.predict([[b"\xff\xfe", b"", b""]])


def test_a_model_that_fails_says_so_in_our_words(
    load: Load, put: Put, graphs: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    made = graphs.model(
        [helper.make_node("Gather", ["w", "ids"], ["y"])],
        [graphs.value("ids", "INT64", ["n"])],
        [graphs.value("y", "FP32", ["n", 2])],
        [onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")],
    )
    with load(put(made)) as model:
        with pytest.raises(aiaas.ModelError, match="out of data bounds"):
            model.predict(np.array([5]))
        assert model.predict(np.array([1]))["y"].tolist() == [[0, 1]]
    assert capfd.readouterr().err == ""  # onnxruntime's own log


# ---------------------------------------------------------------- threads and processes
def test_calls_run_beside_each_other(put: Put, graphs: SimpleNamespace) -> None:
    address = put(graphs.affine())
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found: dict[int, Any] = {}
    with aiaas.load(address, concurrency=4) as model:
        right = model.predict(x)["y"]
        assert model.info().metadata["threads"] == devices.threads(4)

        def ask(place: int) -> None:
            found[place] = [model.predict(x[place : place + 1])["y"] for _ in range(50)]

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all(np.allclose(answer, right[place]) for place, answers in found.items() for answer in answers)
    assert len(found) == 8


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [devices.threads(calls) for calls in (1, 2, 3, 100)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [devices.threads(calls) for calls in (1, 2)] == [3, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_child_process_can_go_on_with_it(put: Put, graphs: SimpleNamespace) -> None:
    """The parent's session has lost its threads there; and a child that ends as usual does end."""
    code = """
        import os, sys, numpy as np, aiaas_sdk as aiaas
        x = np.ones((2, 3), np.float32)
        with aiaas.load(sys.argv[1]) as model:
            right = model.predict(x)["y"]
            child = os.fork()
            if not child:
                assert (model.predict(x)["y"] == right).all()
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert (model.predict(x)["y"] == right).all()
    """
    code = textwrap.dedent(code)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, put(graphs.affine())], check=True, timeout=60)


def test_nothing_is_told_to_anyone(put: Put, graphs: SimpleNamespace) -> None:
    """onnxruntime tells its makers of each model unless a variable says no before it is imported."""
    code = "import os, sys, aiaas_sdk\nwith aiaas_sdk.load(sys.argv[1]) as m: m.info()\n"
    code += "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\nimport onnxruntime"
    subprocess.run([sys.executable, "-c", code, put(graphs.affine())], check=True, timeout=60)


# ---------------------------------------------------------------- devices
def test_a_device_that_is_none_is_refused_before_anything_is_read(put: Put, graphs: SimpleNamespace) -> None:
    with pytest.raises(aiaas.ConfigError, match="device is 'mps'"):
        aiaas.load(put(graphs.affine()), device="mps")


@pytest.mark.skipif(devices.CUDA in onnxruntime.get_available_providers(), reason="onnxruntime has CUDA here")
def test_without_cuda_it_says_what_to_install(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    model = load(put(graphs.affine()), device="cuda:1")
    with pytest.raises(aiaas.ConfigError, match="onnxruntime-gpu"):
        model.info()
    model.close()


def test_cuda_goes_first_where_it_is_there() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert devices.provider(None, both) == (devices.CUDA, {"device_id": "0"})
    assert devices.provider("cuda:2", both) == (devices.CUDA, {"device_id": "2"})
    assert devices.provider("cpu", both) == devices.provider(None, both[1:]) == (devices.CPU, {})


@pytest.mark.skipif(devices.CUDA not in onnxruntime.get_available_providers(), reason="onnxruntime has no CUDA here")
def test_the_gpu_gives_the_same_numbers(load: Load, put: Put, graphs: SimpleNamespace) -> None:
    address = put(graphs.affine())
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with load(address, device="cuda") as there, load(address, device="cpu") as here:
        assert there.info().device == "cuda:0"
        np.testing.assert_allclose(there.predict(x)["y"], here.predict(x)["y"], rtol=1e-3, atol=1e-3)
