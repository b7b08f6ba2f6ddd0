"""From a PyTorch bundle to ONNX: the same answers, in every size, with real weights too; and what int8 costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from aiaas_onnx import export

import aiaas_sdk as aiaas
from aiaas_sdk.bundle import SigningKey, own_key

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "data"
LABELS = list("0123456789")


class Scores(nn.Module):
    """No registered architecture: it is saved as a program."""

    def __init__(self, pooled: int = 1) -> None:
        super().__init__()
        pool = nn.AdaptiveAvgPool2d(pooled)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), pool)
        self.head = nn.Linear(4 * pooled**2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).flatten(1))


class Two(nn.Module):
    """Two inputs of a free length, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.embedding(ids) * mask.unsqueeze(-1)
        return {"hidden": hidden, "pooled": hidden.sum(1)}


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.lstm(series)[0][:, -1]


@pytest.fixture
def cnn(tmp_path: Path) -> str:
    """A bundle of a registered architecture."""
    address = f"torch:{tmp_path / 'digits'}"
    inputs = {"images": ("FP32", (-1, 1, 28, 28))}
    aiaas.create(address, architecture="cnn", config={}, inputs=inputs, labels=LABELS, seed=1).close()
    return address


@pytest.fixture
def program(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return aiaas.save(Scores().eval(), tmp_path / "scores", example=np.zeros((1, 1, 12, 12), np.float32), labels=LABELS)


def images(rows: int = 40, size: int = 28) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 1, size, size)).astype(np.float32)


# ---------------------------------------------------------------- the same answers
@pytest.mark.parametrize("kind", ["cnn", "program"])
def test_answers_are_those_of_pytorch_in_every_size(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    address = request.getfixturevalue(kind)
    found = export(address, tmp_path / "out.onnx")
    assert found.address == f"onnx:{tmp_path / 'out.onnx'}"
    assert found.max_abs < 1e-5
    assert not found.fixed
    with aiaas.load(address) as wanted, aiaas.load(found.address) as model:
        assert model.info().labels == tuple(LABELS)
        assert model.info().inputs == wanted.info().inputs
        assert model.info().outputs == wanted.info().outputs
        for rows in (1, 2, 15, 16, 17, 1000):
            x = images(rows, 28 if kind == "cnn" else 12)
            np.testing.assert_allclose(model.predict(x).array, wanted.predict(x).array, atol=1e-5, rtol=0)


def test_a_size_that_onnx_doesnt_take_is_found_before_anything_is_written(tmp_path: Path) -> None:
    """PyTorch pools whatever comes to 2 x 2; in ONNX the window has the size that it had at export."""
    address = aiaas.save(Scores(2).eval(), tmp_path / "pooled", example=np.zeros((1, 1, 12, 12), np.float32))
    with pytest.raises(aiaas.BundleError, match=r"ONNX doesn't take images \[17, 1, 17, 17\]"):
        export(address, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_several_inputs_and_outputs_and_a_free_length(tmp_path: Path) -> None:
    example = {"ids": np.ones((1, 5), np.int64), "mask": np.ones((1, 5), np.float32)}
    address = aiaas.save(Two(), tmp_path / "two", example=example)
    found = export(address, tmp_path / "bundle")
    assert found.address == f"onnx:{tmp_path / 'bundle'}@1"
    given = {"ids": np.arange(14).reshape(2, 7) % 10, "mask": np.ones((2, 7), np.float32)}
    with aiaas.load(address) as wanted, aiaas.load(found.address) as model:
        right, came = wanted.predict(given), model.predict(given)
        for name in ("hidden", "pooled"):
            np.testing.assert_allclose(came[name], right[name], atol=1e-5)


def test_a_recurrent_network_keeps_its_batch_free(tmp_path: Path) -> None:
    address = aiaas.save(Series(), tmp_path / "series", example=np.zeros((1, 6, 4), np.float32))
    found = export(address, tmp_path / "out.onnx")
    assert found.max_abs < 1e-5
    assert found.info.inputs[0].shape == (-1, 6, 4)


def test_lower_precision_stays_what_it_is(tmp_path: Path) -> None:
    address = aiaas.save(nn.Linear(3, 2).half(), tmp_path / "half", example=np.zeros((1, 3), np.float16))
    found = export(address, tmp_path / "out.onnx")
    assert [spec.datatype for spec in (*found.info.inputs, *found.info.outputs)] == ["FP16", "FP16"]


# ---------------------------------------------------------------- what is written
def test_a_folder_becomes_a_bundle_whose_versions_count_up(cnn: str, tmp_path: Path) -> None:
    first, second = export(cnn, tmp_path / "b"), export(cnn, tmp_path / "b", data=images(3))
    assert [found.info.version for found in (first, second)] == ["1", "2"]
    manifest = json.loads((tmp_path / "b" / "2" / "model.json").read_text())
    with aiaas.load(cnn) as model:
        assert manifest["lineage"]["exported_from"] == model.info().metadata["digest"]
    assert manifest["labels"] == LABELS
    assert (manifest["dtype"], manifest["platform"]) == ("float32", "onnxruntime_onnx")


def test_weights_past_the_limit_of_a_file_go_beside_it(
    cnn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiaas_onnx import converting

    monkeypatch.setattr(converting, "LARGEST", 100_000)
    found = export(cnn, tmp_path / "b")
    assert {"model.onnx", "model.onnx.data"} < {file.name for file in (tmp_path / "b" / "1").iterdir()}
    assert found.max_abs < 1e-5
    with pytest.raises(aiaas.AddressError, match="2 GiB"):
        export(cnn, tmp_path / "one.onnx")
    assert not (tmp_path / "one.onnx").exists()


def test_nobody_s_paths_and_code_are_in_it(cnn: str, tmp_path: Path) -> None:
    export(cnn, tmp_path / "out.onnx")
    data = (tmp_path / "out.onnx").read_bytes()
    assert os.fsencode(ROOT) not in data
    assert b"site-packages" not in data
    assert b"stack_trace" not in data
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)


def test_what_cant_be_written_leaves_nothing(cnn: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(aiaas.BundleError, match="can't be written"):
        export(cnn, tmp_path / "file" / "out.onnx")
    with pytest.raises(aiaas.BundleError, match="can't be written"):
        export(cnn, tmp_path / "file")


def test_an_answer_that_differs_isnt_written(cnn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that was converted wrongly: its last addition is a subtraction."""
    from aiaas_onnx import converting

    right = converting.convert

    def wrong(source: Any) -> onnx.ModelProto:
        made = right(source)
        relu = next(node for node in made.graph.node if node.op_type == "Relu")
        relu.op_type = "Neg"
        return made

    monkeypatch.setattr(converting, "convert", wrong)
    with pytest.raises(aiaas.BundleError, match="answers otherwise than PyTorch"):
        export(cnn, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


# ---------------------------------------------------------------- int8
def test_static_int8_is_small_and_says_what_it_lost(cnn: str, tmp_path: Path) -> None:
    x = images()
    with aiaas.load(cnn) as model:
        truth = model.predict(x).array.argmax(axis=1)
    truth[1] = (truth[1] + 1) % 10  # one of the rows that are compared is wrong before, too
    found = export(cnn, tmp_path / "q", int8="static", data=x, truth=truth)
    assert found.size < found.float_size / 3
    loss = found.loss
    assert loss is not None
    assert loss.rows == 20  # the other half set the scales
    assert 0 < loss.max_abs < 0.1
    assert loss.before == 19 / 20
    assert loss.after is not None
    assert loss.after > 0.7
    assert loss.agreement is not None
    assert loss.agreement > 0.7
    with aiaas.load(cnn) as wanted, aiaas.load(found.address) as model:
        assert model.info().metadata["dtype"] == "int8"
        difference = np.abs(model.predict(x[1::2]).array - wanted.predict(x[1::2]).array).max()
        assert difference == pytest.approx(loss.max_abs, rel=1e-3)


def test_dynamic_int8_needs_no_data(cnn: str, tmp_path: Path) -> None:
    found = export(cnn, tmp_path / "q.onnx", int8="dynamic")
    assert found.size < found.float_size / 2
    assert found.loss is None


def test_the_root_logger_is_left_as_it_was(cnn: str, tmp_path: Path) -> None:
    import logging

    before = logging.root.disabled, list(logging.root.handlers)
    export(cnn, tmp_path / "q.onnx", int8="dynamic")
    assert (logging.root.disabled, list(logging.root.handlers)) == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"int8": "static"}, "no data to scale by"),
        ({"int8": "int4"}, "int8 is 'int4'"),
        ({"truth": [1]}, "without data"),
        ({"data": np.zeros((2, 1, 28, 28))}, "float64"),
        ({"data": {"pictures": np.zeros((2, 1, 28, 28), np.float32)}}, "lacks the input 'images'"),
        ({"data": np.zeros((2, 1, 28, 28), np.float32), "truth": [1]}, "1 entries for 2 rows"),
    ],
)
def test_options_that_dont_fit(cnn: str, tmp_path: Path, options: Any, text: str) -> None:
    with pytest.raises(aiaas.InputError, match=text):
        export(cnn, tmp_path / "out.onnx", **options)


def test_only_a_bundle_can_be_exported(tmp_path: Path) -> None:
    with pytest.raises(aiaas.AddressError, match="no bundle of PyTorch"):
        export("echo:", tmp_path / "out.onnx")
    with pytest.raises(aiaas.ModelNotFoundError):
        export(tmp_path / "nothing", tmp_path / "out.onnx")


def test_a_program_of_somebody_else_isnt_run(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path / "another"))
    with pytest.raises(aiaas.UnsafeBundleError):
        export(program, tmp_path / "out.onnx")


# ---------------------------------------------------------------- the command
def aiaas_command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiaas_sdk.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_the_command_tells_what_was_lost(cnn: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(10))
    np.save(tmp_path / "y.npy", np.arange(10))
    given = ["--data", tmp_path / "x.npy", "--truth", tmp_path / "y.npy"]
    done = aiaas_command("export", cnn, tmp_path / "q", "--int8", "static", *given)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert told["address"].strip() == f"onnx:{tmp_path / 'q'}@1"
    assert told["rows compared"].strip() == "5"
    assert "lost" in told["accuracy"]


def test_the_command_fails_as_the_others_do(tmp_path: Path) -> None:
    done = aiaas_command("export", "echo:", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "no bundle of PyTorch" in done.stderr
    done = aiaas_command("export", tmp_path / "nothing", tmp_path / "out.onnx", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["type"] == "ModelNotFoundError"


# ---------------------------------------------------------------- real weights
@pytest.mark.peer
def test_a_real_encoder_gives_the_reference_s_vectors(tmp_path: Path) -> None:
    """MiniLM, whose vectors somebody else's code computed (tests/data)."""
    from aiaas_sdk.backends.torch.importing import import_model
    from tests.peers import weights

    golden = json.loads((GOLDEN / "minilm.json").read_text())
    import_model(weights("minilm"), tmp_path / "minilm")
    found = export(f"torch:{tmp_path / 'minilm'}", tmp_path / "minilm.onnx")
    assert found.max_abs < 1e-5
    ids = np.array(golden["ids"])
    with aiaas.load(found.address) as model:
        came = model.predict({"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)})
        assert np.abs(came["embedding"] - np.array(golden["embedding"])).max() < 1e-5


def test_settings_that_ask_for_a_signature_mean_what_is_exported_and_not_what_is_made(cnn: str, tmp_path: Path) -> None:
    key, own, home = SigningKey(bytes(range(32))), own_key().public, Path(os.environ["AIAAS_HOME"])
    (home / "aiaas.toml").write_text(f'defaults.verify = ["{key.public}"]')
    version = Path(cnn.removeprefix("torch:"), "1")
    signature = version / "model.sig"
    signature.unlink()
    with pytest.raises(aiaas.IntegrityError, match="isn't signed"):
        export(cnn, tmp_path / "onnx")
    signature.write_bytes(key.sign((version / "model.json").read_bytes()))
    made = export(cnn, tmp_path / "onnx", int8="dynamic", data=images())
    assert made.info.metadata["signed_by"] == own
    with aiaas.load(made.address) as model:
        assert model.info().metadata["signed_by"] == own


def test_a_program_of_a_stranger_is_exported_with_the_key_of_its_own_entry(program: str, tmp_path: Path) -> None:
    key, home = SigningKey(bytes(range(32))), Path(os.environ["AIAAS_HOME"])
    version = Path(program.removeprefix("torch:").partition("@")[0], "1")
    (version / "model.sig").write_bytes(key.sign((version / "model.json").read_bytes()))
    (home / "aiaas.toml").write_text(f'[models.theirs]\naddress = "{program}"\nverify = ["{key.public}"]')
    assert export("theirs", tmp_path / "theirs.onnx").max_abs < 1e-4
