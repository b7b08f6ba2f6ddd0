"""Bundles run with PyTorch: what is saved is what answers."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

torch = pytest.importorskip("torch")
nn = torch.nn


class Scores(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.layer(features))


class Text(nn.Module):
    """Two inputs of one free length, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.embedding(ids) * mask.unsqueeze(-1)
        return {"hidden": hidden, "pooled": hidden.sum(1)}


class Stateful(nn.Module):
    """Rows are the first axis of one tensor and the second of another."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(5, 8)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
        h, c = self.cell(x, (state[0], state[1]))
        return namedtuple("Answer", "speech state")(h.sum(1, keepdim=True), torch.stack((h, c)))


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.lstm(series)[0][:, -1]


class Unrolled(nn.Module):
    """The code depends on the length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 8)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        state = series.new_zeros(series.shape[0], 8)
        for index in range(series.shape[1]):
            state = self.cell(series[:, index], state)
        return state


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids)) * self.scale


ROW = np.ones((1, 4), np.float32)


def test_a_saved_module_answers_as_itself_for_any_number_of_rows(tmp_path: Path) -> None:
    module = Scores()
    address = aiaas.save(module, tmp_path / "scores", example=ROW, labels=["a", "b", "c"])
    assert address == f"torch:{tmp_path / 'scores'}@1"
    assert module.training
    module.eval()
    with aiaas.load(address) as model:
        info = model.info()
        assert info.inputs == (aiaas.TensorSpec("features", "FP32", (-1, 4)),)
        assert info.outputs == (aiaas.TensorSpec("logits", "FP32", (-1, 3)),)
        assert (info.labels, info.version, info.platform) == (("a", "b", "c"), "1", "pytorch_exported")
        assert info.rows_free
        for rows in (0, 1, 2, 15, 16, 17, 1000):
            x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
            with torch.inference_mode():
                wanted = module(torch.from_numpy(x)).numpy()
            assert np.array_equal(model.predict(x)["logits"], wanted)


def test_rows_that_sum_to_one_are_probabilities(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    model = aiaas.load(aiaas.save(module, tmp_path / "p", example=ROW, labels=["a", "b", "c"]))
    pred = model.predict(ROW)
    assert list(pred) == ["probabilities"]
    assert pred.top(3)[0][0][1] == pytest.approx(float(pred.array.max()))


@pytest.mark.parametrize("module", [nn.Identity(), nn.ReLU()])
def test_labels_name_the_columns_of_a_module_that_takes_any_number_of_them(module: Any, tmp_path: Path) -> None:
    address = aiaas.save(module, tmp_path / "m", example=np.zeros((1, 3), np.float32), labels=["a", "b", "c"])
    with aiaas.load(address) as model:
        assert [(spec.name, spec.shape) for spec in model.info().outputs] == [("logits", (-1, 3))]
        assert [row[0][0] for row in model.predict(np.eye(3, dtype=np.float32)).top()] == ["a", "b", "c"]


def test_several_inputs_and_outputs_keep_their_names_and_free_lengths(tmp_path: Path) -> None:
    ids = torch.arange(5)[None]
    address = aiaas.save(Text(), tmp_path / "text", example={"ids": ids, "mask": torch.ones_like(ids)})
    model = aiaas.load(address)
    assert [spec.shape for spec in model.info().inputs] == [(-1, -1), (-1, -1)]
    assert {spec.name: spec.shape for spec in model.info().outputs} == {"hidden": (-1, -1, 6), "pooled": (-1, 6)}
    ids = np.array([[1, 2, 3, 4, 5, 6, 7]] * 2)
    pred = model.predict({"mask": np.ones_like(ids), "ids": ids}, outputs=["pooled"])
    assert list(pred) == ["pooled"]
    assert pred["pooled"].shape == (2, 6)


def test_rows_that_are_not_the_first_axis_stay_where_they_are(tmp_path: Path) -> None:
    example = {"x": torch.zeros(1, 5), "state": torch.zeros(2, 1, 8)}
    model = aiaas.load(aiaas.save(Stateful(), tmp_path / "state", example=example))
    info = model.info()
    assert [spec.shape for spec in info.inputs] == [(-1, 5), (2, -1, 8)]
    assert {spec.name: spec.shape for spec in info.outputs} == {"speech": (-1, 1), "state": (2, -1, 8)}
    assert not info.rows_free
    pred = model.predict({"x": np.zeros((3, 5), np.float32), "state": np.zeros((2, 3, 8), np.float32)})
    assert pred["state"].shape == (2, 3, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Series, Unrolled])
def test_an_axis_that_export_fixes_is_announced_as_fixed(tmp_path: Path, kind: type[Any]) -> None:
    model = aiaas.load(aiaas.save(kind(), tmp_path / "series", example=np.zeros((1, 6, 4), np.float32)))
    assert model.info().inputs[0].shape == (-1, 6, 4)
    assert model.predict(np.zeros((5, 6, 4), np.float32)).array.shape == (5, 8)
    with pytest.raises(aiaas.InputError, match=r"wants FP32 \[-1, 6, 4\]"):
        model.predict(np.zeros((5, 7, 4), np.float32))


def test_tied_weights_and_unsaved_buffers_come_back(tmp_path: Path) -> None:
    module = Tied().eval()
    ids = torch.tensor([[1, 2, 3]])
    aiaas.save(module, tmp_path / "tied", example=ids)
    with torch.inference_mode():
        wanted = module(ids)
    for options in ({}, {"architecture": Tied}):
        answer = aiaas.load(tmp_path / "tied", **options).predict(ids).array
        assert torch.equal(answer, wanted)
    assert len((tmp_path / "tied" / "1" / "weights.safetensors").read_bytes()) < 7 * 4 * 4 + 300


def test_torch_in_gives_torch_out_and_grad_is_left_behind(tmp_path: Path) -> None:
    model = aiaas.load(aiaas.save(Scores(), tmp_path / "s", example=ROW))
    answer = model.predict(torch.ones(2, 4, requires_grad=True)).array
    assert isinstance(answer, torch.Tensor)
    assert not answer.requires_grad


def test_a_read_only_array_is_taken(tmp_path: Path) -> None:
    model = aiaas.load(aiaas.save(Scores(), tmp_path / "s", example=ROW))
    frozen = ROW.copy()
    frozen.flags.writeable = False
    assert np.array_equal(model.predict(frozen).array, model.predict(ROW).array)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_another_dtype_computes_otherwise_under_the_same_signature(tmp_path: Path, dtype: str) -> None:
    aiaas.save(nn.Linear(4, 3), tmp_path / "s", example=ROW)
    with pytest.raises(aiaas.UnsupportedOperationError, match="saved as a program, whose dtype is float32"):
        aiaas.load(tmp_path / "s", dtype=dtype)
    aiaas.create(f"torch:{tmp_path / 'm'}", architecture="mlp", config={"features": 4, "classes": 3})
    plain, other = aiaas.load(tmp_path / "m").predict(ROW), aiaas.load(tmp_path / "m", dtype=dtype).predict(ROW)
    assert other.array.dtype == np.float32
    assert np.allclose(plain.array, other.array, atol=0.02)
    assert aiaas.load(tmp_path / "m", dtype=dtype).info().metadata["dtype"] == dtype


def test_options_that_can_not_work_are_refused_before_opening(tmp_path: Path) -> None:
    aiaas.save(Scores(), tmp_path / "s", example=ROW)
    wrong = ({"device": torch.device("cpu")}, "device is device")
    for options, words in (({"device": "gpu"}, "device is 'gpu'"), wrong, ({"dtype": "fp16"}, "dtype is 'fp16'")):
        with pytest.raises(aiaas.ConfigError, match=words):
            aiaas.load(tmp_path / "s", **options)
    if not torch.cuda.is_available():
        with pytest.raises(aiaas.ConfigError, match="no such GPU"):
            aiaas.load(tmp_path / "s", device="cuda").info()
    with pytest.raises(aiaas.ModelNotFoundError, match=r"no version 7; it has 1"):
        aiaas.load(f"torch:{tmp_path / 's'}@7")
    with pytest.raises(aiaas.ModelNotFoundError, match="holds no model"):
        aiaas.load(tmp_path / "nothing")


class Counting(Scores):
    """Makes a tensor within its forward: export writes down the device on which it did."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features * torch.arange(1, 5, device=features.device))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("module", [Scores, Counting])
def test_a_program_saved_on_the_cpu_runs_on_the_gpu(module: Any, tmp_path: Path) -> None:
    aiaas.save(module(), tmp_path / "s", example=ROW)
    here, there = (aiaas.load(tmp_path / "s", device=device) for device in ("cpu", "cuda"))
    assert np.allclose(here.predict(ROW).array, there.predict(ROW).array, atol=1e-5)
    assert there.predict(torch.ones(1, 4, device="cuda")).array.device.type == "cuda"


def test_a_tensor_made_within_forward_goes_to_the_device_with_the_program(tmp_path: Path) -> None:
    """On any machine: torch's own device without memory stands for the GPU."""
    from aiaas_sdk import bundle
    from aiaas_sdk.backends.torch import programs, weights

    aiaas.save(Counting(), tmp_path / "s", example=ROW)
    found = bundle.read(bundle.locate(tmp_path / "s", None), bundle.Trust.of(True), program=True)
    program = programs.restore(found.program, weights.from_bytes(found.weights), "s")
    forward = programs.flat(programs.moved(program, torch.device("meta")))
    assert [tensor.device.type for tensor in forward(torch.ones(2, 4, device="meta"))] == ["meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_module_on_the_gpu_is_to_be_saved_from_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(aiaas.BundleError, match="Save it from the CPU"):
        aiaas.save(Scores().cuda(), tmp_path / "s", example=ROW)


# ---------------------------------------------------------------- trust
def test_a_program_of_a_stranger_is_refused_and_named_and_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aiaas.save(Scores(), tmp_path / "s", example=ROW)
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path / "another user"))
    with pytest.raises(aiaas.UnsafeBundleError, match="signed by ed25519:") as caught:
        aiaas.load(tmp_path / "s").info()
    key = json.loads((tmp_path / "s" / "1" / "model.sig").read_bytes())["key"]
    assert key in str(caught.value)
    assert aiaas.load(tmp_path / "s", verify=[key]).predict(ROW).array.shape == (1, 3)
    assert aiaas.load(tmp_path / "s", architecture=Scores).predict(ROW).array.shape == (1, 3)


def test_a_registered_architecture_needs_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aiaas.create(f"torch:{tmp_path / 'm'}", architecture="mlp", config={"features": 4, "classes": 3}, seed=3)
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path / "another user"))
    (tmp_path / "m" / "1" / "model.sig").unlink()
    assert aiaas.load(tmp_path / "m").info().platform == "pytorch_module"


# ---------------------------------------------------------------- architectures
def test_a_class_registered_by_the_user_is_saved_by_name(tmp_path: Path) -> None:
    @aiaas.architecture("scores-of-a-test")
    class Own(Scores):
        pass

    with pytest.raises(aiaas.BundleError, match=r"'layer.weight' is .*Give config="):
        aiaas.save(Own(5), tmp_path / "own", example=ROW)
    assert not (tmp_path / "own" / "1").exists()
    model = aiaas.load(aiaas.save(Own(5), tmp_path / "own", example=ROW, config={"width": 5}))
    assert model.info().metadata["architecture"] == "scores-of-a-test"
    assert model.predict(ROW).array.shape == (1, 5)


def test_a_class_that_is_not_rebuilt_by_its_arguments_is_not_saved(tmp_path: Path) -> None:
    @aiaas.architecture("forgetful")
    class Forgetful(Scores):
        def __init__(self, factor: float = 1.0) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features) * self.factor

    with pytest.raises(aiaas.BundleError, match="answers 'output' otherwise than the module"):
        aiaas.save(Forgetful(2.0), tmp_path / "f", example=ROW)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": 5}, r"'layers.0.weight' is torch.float32 \[64, 4\]; the architecture has .*\[64, 5\]"),
        ({"hidden": [64, 64]}, "'layers.2.weight' is"),
        ({"hidden": []}, r"which the architecture hasn't"),
        ({"features": 10**12}, "features is 1000000000000"),
        ({"depth": 3}, "can't be made from the arguments"),
    ],
)
def test_weights_that_do_not_fit_the_architecture_are_named(tmp_path: Path, change: Any, words: str) -> None:
    aiaas.create(f"torch:{tmp_path / 'm'}", architecture="mlp", config={"features": 4, "classes": 3})
    path = tmp_path / "m" / "1" / "model.json"
    manifest = json.loads(path.read_bytes())
    manifest["architecture"]["config"] |= change
    path.write_text(json.dumps(manifest))
    (path.parent / "model.sig").unlink()
    with pytest.raises(aiaas.BundleError, match=words):
        aiaas.load(tmp_path / "m").info()


def test_create_is_reproducible_by_seed_and_never_writes_over_a_model(tmp_path: Path) -> None:
    inputs = {"images": ("FP32", [-1, 3, 12, 12])}
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        aiaas.create(f"torch:{tmp_path / name}", architecture="cnn", inputs=inputs, labels=["x", "y"], seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    x = np.ones((2, 3, 12, 12), np.float32)
    a, b = (aiaas.load(tmp_path / name) for name in ("a", "b"))
    assert np.array_equal(a.predict(x)["logits"], b.predict(x)["logits"])
    assert a.info().inputs[0] == aiaas.TensorSpec("images", "FP32", (-1, 3, 12, 12))
    with pytest.raises(aiaas.BundleError, match="has version 1 already"):
        aiaas.create(f"torch:{tmp_path / 'a'}", architecture="cnn")
    with pytest.raises(aiaas.UnsafeBundleError, match="nobody registered"):
        aiaas.create(f"torch:{tmp_path / 'c'}", architecture="os")


def test_save_takes_the_address_that_load_takes(tmp_path: Path) -> None:
    assert aiaas.save(Scores(), f"torch:{tmp_path}/m", example=ROW) == f"torch:{tmp_path}/m@1"
    assert aiaas.save(Scores(), f"{tmp_path}/m/", example=ROW) == f"torch:{tmp_path}/m@2"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_bytes(b"x"), "a file of weights is none"),
        (lambda path: (path / "digits" / "1").mkdir(parents=True), "folder of models: .*/m/digits"),
        (lambda path: [path.mkdir(), (path / "config.json").write_text("{}")], "aiaas import .* makes a bundle"),
    ],
)
def test_a_place_without_a_model_says_what_to_do_with_what_is_there(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "m")
    with pytest.raises(aiaas.ModelNotFoundError, match=f"holds no model.*{words}"):
        aiaas.load(f"torch:{tmp_path}/m")


# ---------------------------------------------------------------- what can't be saved
class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {"a": [x]}


def test_what_can_not_be_saved_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(aiaas.InputError, match="output 'a' is a list"):
        aiaas.save(Random(), tmp_path / "r", example=ROW)
    with pytest.raises(aiaas.InputError, match="example has 'x'; the module's forward takes features"):
        aiaas.save(Scores(), tmp_path / "r", example={"x": ROW})
    with pytest.raises(aiaas.ConfigError, match="2 labels, and no output's last axis has that size"):
        aiaas.save(Scores(), tmp_path / "r", example=ROW, labels=["a", "b"])
    with pytest.raises(aiaas.InputError, match=r"torch\.nn\.Module, not a dict"):
        aiaas.save({}, tmp_path / "r", example=ROW)
    with pytest.raises(aiaas.InputError, match=r"fails on the example, \w+ FP64 \[.*RuntimeError.*np\.float32"):
        aiaas.save(Scores(), tmp_path / "r", example=np.asarray(ROW, np.float64))
    for address in ("https://host/v2/models/r", f"torch:{tmp_path}/r@3"):
        with pytest.raises(aiaas.AddressError, match="isn't the folder of one"):
            aiaas.save(Scores(), address, example=ROW)
    assert not list(tmp_path.glob("r/*"))


def test_versions_count_as_numbers_and_an_open_model_stays_what_it_was(tmp_path: Path) -> None:
    first = aiaas.save(Scores(), tmp_path / "s", example=ROW, version=9)
    model = aiaas.load(tmp_path / "s")
    before = model.predict(ROW)
    second = aiaas.save(Scores(), tmp_path / "s", example=ROW)
    assert (first[-2:], second[-3:]) == ("@9", "@10")
    assert np.array_equal(model.predict(ROW).array, before.array)
    assert aiaas.load(tmp_path / "s").info().version == "10"
    with pytest.raises(aiaas.BundleError, match="has a version 9 already"):
        aiaas.save(Scores(), tmp_path / "s", example=ROW, version=9)
