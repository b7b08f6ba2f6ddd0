"""Untrained language models, and what their bundles hold."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import (
    BackendNotInstalledError,
    BundleError,
    ConfigError,
    IntegrityError,
    UnsupportedOperationError,
)

Load = Any
SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 64}


def create(path: Path, architecture: str = "transformer", config: Any = SMALL, **options: Any) -> str:
    with aiaas.create(f"torch:{path}", architecture=architecture, config=config, seed=1, **options):
        return f"torch:{path}"


def test_a_decoder_of_bytes_speaks(load: Load, tmp_path: Path) -> None:
    with load(create(tmp_path / "m", tokenizer="bytes")) as model:
        assert model.info().verbs >= {"predict", "generate", "stream", "explain"}
        answer = model.generate("abc", max_tokens=9, temperature=1.0, seed=1)
        assert answer.usage.input_tokens == 3
        assert answer.usage.output_tokens <= 9
        messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "abc"}]
        assert model.generate(messages, max_tokens=2).usage.input_tokens == len("system: be\nuser: abc\nassistant:")
        assert model.predict(np.array([[1, 2], [3, 4]]))["logits"].shape == (2, 2, 257)


def test_signatures(load: Load, tmp_path: Path) -> None:
    for kind, inputs, outputs in (
        ("decoder", ["input_ids"], {"logits": (-1, -1, 257)}),
        ("encoder", ["input_ids", "attention_mask"], {"hidden": (-1, -1, 16), "embedding": (-1, 16)}),
        ("encoder_decoder", ["input_ids", "decoder_input_ids"], {"logits": (-1, -1, 257)}),
    ):
        with load(create(tmp_path / kind, config={**SMALL, "kind": kind})) as model:
            info = model.info()
            assert not info.verbs & {"generate", "stream", "embed"}  # without a tokenizer
            assert [(spec.name, spec.datatype, spec.shape) for spec in info.inputs] == [
                (name, "INT64", (-1, -1)) for name in inputs
            ]
            assert {spec.name: spec.shape for spec in info.outputs} == outputs


def test_a_tokenizer_from_a_file(load: Load, llama: Path, tmp_path: Path) -> None:
    address = create(tmp_path / "m", tokenizer=str(llama / "tokenizer.json"))
    with load(address) as model:
        assert model.generate("one two", max_tokens=3).usage.output_tokens <= 3
    manifest = json.loads((tmp_path / "m" / "1" / "model.json").read_text())
    assert manifest["language"]["end"] == [1]
    assert set(manifest["files"]) == {"weights.safetensors", "tokenizer.json"}
    assert manifest["architecture"]["config"]["vocabulary"] == 288


def test_tokens_beyond_the_tokenizer_s_are_never_drawn(load: Load, tmp_path: Path) -> None:
    address = create(tmp_path / "m", config={**SMALL, "vocabulary": 5000, "context": 300}, tokenizer="bytes")
    with load(address) as model:
        answer = model.generate("abc", max_tokens=200, temperature=2.0, seed=1, logprobs=0)
        assert len(answer.logprobs) >= answer.usage.output_tokens - 1


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"tokenizer": "missing.json"}, ConfigError, "'missing.json' can't be read"),
        ({"tokenizer": "bytes", "config": {**SMALL, "vocabulary": 9}}, ConfigError, "vocabulary is 9"),
        ({"tokenizer": "bytes", "config": {**SMALL, "kind": "encoder_decoder"}}, UnsupportedOperationError, "no use"),
        ({"tokenizer": "bytes", "config": {**SMALL, "layers": 2000}}, ConfigError, "at most 1024"),
        ({"tokenizer": "bytes", "config": {**SMALL, "depth": 2}}, ConfigError, "'depth'"),
        ({"tokenizer": "bytes", "architecture": "mlp", "config": {"features": 3}}, UnsupportedOperationError, "'mlp'"),
        ({"tokenizer": "bytes", "inputs": {"x": ("FP32", (-1, 3))}}, ConfigError, "says itself what it takes"),
    ],
)
def test_what_cannot_be_created(tmp_path: Path, options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        create(tmp_path / "m", **options)
    assert not (tmp_path / "m").exists() or not any((tmp_path / "m").iterdir())


@pytest.mark.parametrize("package", ["tokenizers", "jinja2"])
def test_without_the_extra_it_is_named(talker: str, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendNotInstalledError, match=rf"{package}.*aiaas-sdk\[language\]"):
        aiaas.load(talker).info()


# ---------------------------------------------------------------- what a bundle may say
@pytest.fixture
def bundle(talker: str, tmp_path: Path) -> Path:
    """A copy of the trained model's bundle."""
    shutil.copytree(talker.removeprefix("torch:"), tmp_path / "talker")
    for signature in (tmp_path / "talker").glob("*/model.sig"):
        signature.unlink()
    return tmp_path / "talker"


def change(bundle: Path, **language: Any) -> None:
    path = bundle / "1" / "model.json"
    manifest = json.loads(path.read_text())
    manifest["language"].update(language)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["tokenizer.json", "chat_template.jinja"])
def test_its_files_are_checked_as_the_weights_are(bundle: Path, file: str) -> None:
    with (bundle / "1" / file).open("a") as handle:
        handle.write(" ")
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        aiaas.load(f"torch:{bundle}").info()


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ({"tokenizer": "../tokenizer.json"}, "which isn't beside it"),
        ({"tokenizer": "/etc/passwd"}, "which isn't beside it"),
        ({"template": "other.jinja"}, "which isn't beside it"),
        ({"context": 10**6}, "says that it can generate texts of 1000000"),
        ({"context": 0}, "isn't a manifest"),
        ({"task": "embed"}, "its architecture says generate"),
        ({"task": "other"}, "isn't a manifest"),
        ({"end": [10**6]}, "beyond the model's 288 tokens"),
        ({"end": [-1]}, "isn't a manifest"),
        ({"tokenizer": "weights.safetensors"}, "which isn't beside it"),
        ({"tokenizer": "chat_template.jinja"}, "isn't a tokenizer"),
        ({"sampling": {"temperature": 9}}, "its own sampling options"),
        ({"sampling": {"warmth": 1}}, "its own sampling options"),
        ({"more": 1}, "isn't a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_true(bundle: Path, language: dict[str, Any], told: str) -> None:
    change(bundle, **language)
    with pytest.raises(BundleError, match=told):
        aiaas.load(f"torch:{bundle}").info()


def test_a_bundle_has_its_own_usual_options(load: Load, bundle: Path) -> None:
    change(bundle, sampling={"max_tokens": 2})
    with load(f"torch:{bundle}") as model:
        assert model.generate("count").usage.output_tokens == 2
        assert model.generate("count", max_tokens=3).usage.output_tokens == 3
