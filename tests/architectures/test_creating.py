"""`create` with each architecture: what a signature decides, what a bundle gives back, what doesn't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import TensorSpec
from aiaas_sdk.architectures import names

ABC = ["a", "b", "c"]
TEXT = ("INT64", [-1, -1])
Load = Any
SIGNATURES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cnn", {"image": ("FP32", [-1, 1, 28, 28])}, {}),
    ("cnn", {"audio": ("FP32", [-1, 2, -1])}, {}),
    ("cnn", {"audio": ("FP32", [-1, 1, 160])}, {"filters": [8], "kernel": 9}),
    ("cnn", {"inputs": ("FP32", [-1, 2, -1]), "mask": ("BOOL", [-1, -1])}, {}),
    ("cnn", {"ids": TEXT}, {"vocabulary": 30}),
    ("cnn", {"inputs": TEXT, "mask": TEXT}, {"vocabulary": 30}),
    ("rnn", {"series": ("FP32", [-1, -1, 4])}, {"kind": "gru"}),
    ("rnn", {"inputs": ("FP32", [-1, -1, 12]), "mask": TEXT}, {"bidirectional": True, "layers": 2}),
    ("rnn", {"ids": TEXT}, {"vocabulary": 30, "kind": "rnn"}),
    ("rnn", {"inputs": TEXT, "mask": TEXT}, {"vocabulary": 30, "head": "every"}),
    ("rnn", {"inputs": TEXT, "decoder_inputs": TEXT}, {"vocabulary": 30}),
    ("rnn", {"inputs": ("FP32", [-1, -1, 5]), "mask": TEXT, "decoder_inputs": TEXT}, {}),
    ("transformer", {"text": TEXT}, {"width": 32}),
    ("transformer", {"input_ids": TEXT, "attention_mask": TEXT}, {"width": 32, "vocabulary": 50, "pool": "cls"}),
    ("transformer", {"image": ("FP32", [-1, 1, 28, 28])}, {"width": 32}),
    ("mlp", {"flower": ("FP32", [-1, 4])}, {"hidden": [8, 8], "activation": "gelu"}),
]


def rows(specs: tuple[TensorSpec, ...], count: int, free: int) -> dict[str, np.ndarray]:
    """Rows of these inputs; tokens are of the first two, and masks hide nothing."""
    rng, found = np.random.default_rng(0), {}
    for spec in specs:
        shape = [count, *(free if size == -1 else size for size in spec.shape[1:])]
        if "mask" in spec.name:
            found[spec.name] = np.ones(shape, bool if spec.datatype == "BOOL" else np.int64)
        elif spec.datatype == "INT64":
            found[spec.name] = rng.integers(0, 2, shape)
        else:
            found[spec.name] = rng.normal(size=shape).astype(np.float32)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "inputs", "config"), SIGNATURES)
def test_a_signature_makes_a_model_that_keeps_it(
    tmp_path: Path, architecture: str, inputs: dict[str, Any], config: dict[str, Any]
) -> None:
    """The names and free sizes are those that were asked for; rows are answered alike alone and together."""
    address = f"torch:{tmp_path / 'm'}"
    aiaas.create(address, architecture=architecture, inputs=inputs, labels=ABC, config=config, seed=3).close()
    with aiaas.load(address) as model:
        info = model.info()
        for spec in info.inputs:
            datatype, shape = inputs[spec.name]
            assert spec.datatype == datatype
            assert all(found in (-1, asked) for found, asked in zip(spec.shape, shape, strict=True))
        assert [spec.name for spec in info.inputs] == [*inputs]
        assert [spec.name for spec in info.outputs] == ["logits"]
        assert info.outputs[0].shape[0] == -1
        assert info.outputs[0].shape[-1] == 3
        for free in (1, 6, 13):
            x = rows(info.inputs, 3, free)
            together = model.predict(x)["logits"]
            for row in range(3):
                alone = model.predict({name: array[row : row + 1] for name, array in x.items()})["logits"]
                np.testing.assert_allclose(alone[0], together[row], atol=1e-5)
        manifest = next((tmp_path / "m").glob("1/*.json"))
        assert not list(manifest.parent.glob("*.pt2"))


@pytest.mark.parametrize(("architecture", "inputs", "config"), SIGNATURES[::3])
def test_seeds_make_the_same_weights(
    tmp_path: Path, architecture: str, inputs: dict[str, Any], config: dict[str, Any]
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        address = f"torch:{tmp_path / name}"
        aiaas.create(address, architecture=architecture, inputs=inputs, labels=ABC, config=config, seed=seed).close()
    a, b, c = ((tmp_path / name / "1" / "weights.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_regression_has_one_output_and_no_labels(load: Load, tmp_path: Path) -> None:
    aiaas.create(f"torch:{tmp_path / 'm'}", architecture="rnn", inputs={"x": ("FP32", [-1, -1, 2])}, seed=1).close()
    with load(f"torch:{tmp_path / 'm'}") as model:
        assert model.predict({"x": np.zeros((2, 5, 2), np.float32)})["output"].shape == (2, 1)


@pytest.mark.parametrize(
    ("architecture", "inputs", "told"),
    [
        ("cnn", {"x": ("FP32", [-1, 3])}, r"doesn't take x FP32 \[-1, 3\].*CHANNELS.*\"mlp\""),
        ("cnn", {"x": ("UINT8", [-1, 1, 28, 28])}, "doesn't take x UINT8"),
        ("cnn", {"x": ("FP32", [-1, 1, -1, -1])}, "CHANNELS, HEIGHT, WIDTH"),
        ("cnn", {"x": TEXT}, 'config={"vocabulary"'),
        ("cnn", {"inputs": ("FP32", [-1, 1, 8, 8]), "mask": TEXT}, "doesn't take inputs"),
        ("rnn", {"x": ("FP32", [-1, 3])}, r"\[-1, -1, FEATURES\]"),
        ("rnn", {"series": ("FP32", [-1, -1, 3]), "mask": TEXT}, 'then called "inputs"'),
        ("rnn", {"inputs": TEXT, "decoder_inputs": ("FP32", [-1, -1])}, "one sequence from another"),
        ("rnn", {"x": TEXT}, 'config={"vocabulary"'),
        ("transformer", {"x": ("FP32", [-1, 3])}, r"isn't x FP32 \[-1, 3\].*attention_mask"),
        ("mlp", {"x": ("FP32", [-1, 1, 28, 28])}, '"cnn"'),
        ("mlp", {"x": ("FP32", [-1, -1])}, "FEATURES"),
    ],
)
def test_a_signature_that_does_not_fit(tmp_path: Path, architecture: str, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(aiaas.ConfigError, match=told):
        aiaas.create(f"torch:{tmp_path / 'm'}", architecture=architecture, inputs=inputs, labels=ABC)
    assert not (tmp_path / "m").exists()


def test_a_bundle_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    """A stranger's arguments build nothing that the weights beside them don't have."""
    aiaas.create(f"torch:{tmp_path / 'm'}", architecture="rnn", config={"features": 3}).close()
    file = tmp_path / "m" / "1" / "model.json"
    text = file.read_text()
    (file.parent / "model.sig").unlink()
    for change, told in (('"hidden": 16000000', "the architecture has"), ('"hidden": 1e9', "whole number")):
        file.write_text(text.replace('"hidden": 64', change))
        with pytest.raises(aiaas.BundleError, match=told):
            aiaas.load(tmp_path / "m").info()


def test_all_are_there_by_name() -> None:
    assert {"cnn", "mlp", "rnn", "transformer"} <= {*names()}
