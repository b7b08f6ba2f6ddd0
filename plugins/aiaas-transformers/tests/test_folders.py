"""Which folders are taken, and that no code, pickle or download comes with one."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import aiaas_sdk as aiaas


@pytest.fixture
def copy(small: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy of the decoder, to be spoilt."""
    shutil.copytree(small.base.removeprefix("hf:"), tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **facts: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def opened(folder: Path) -> aiaas.ModelInfo:
    with aiaas.load(f"hf:{folder}") as model:
        return model.info()


def test_what_it_says_of_itself(copy: Path) -> None:
    with aiaas.load(f"hf:{copy}", device="cpu", dtype="bfloat16") as model:
        info = model.info()
    assert (info.name, info.platform, info.device) == ("model", "transformers_safetensors", "cpu")
    assert (info.metadata["architecture"], info.metadata["dtype"]) == ("LlamaForCausalLM", "bfloat16")


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("", aiaas.AddressError, "names no folder"),
        ("org/model", aiaas.ModelNotFoundError, "download the model first"),
        ("model@3", aiaas.AddressError, "names no folder and no file"),
        ("empty", aiaas.BundleError, r"no config\.json"),
        ("file.txt", aiaas.BundleError, r"no \.gguf file"),
    ],
)
def test_what_isnt_there_is_said_at_load(tmp_path: Path, target: str, error: Any, text: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(error, match=text):
        aiaas.load(f"hf:{tmp_path / target}" if target else "hf:")


@pytest.mark.parametrize(
    ("options", "text"), [({"device": "tpu"}, "device is 'tpu'"), ({"dtype": "int8"}, "dtype is 'int8'")]
)
def test_options_that_are_none(small: SimpleNamespace, options: Any, text: str) -> None:
    with pytest.raises(aiaas.ConfigError, match=text):
        aiaas.load(small.base, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(small: SimpleNamespace) -> None:
    with pytest.raises(aiaas.ConfigError, match="no such GPU"), aiaas.load(small.base, device="cuda") as model:
        model.info()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_the_gpu_says_the_same(small: SimpleNamespace) -> None:
    with aiaas.load(small.base, device="cuda") as there, aiaas.load(small.base, device="cpu") as here:
        assert there.info().device == "cuda:0"
        assert there.generate("Once", max_tokens=10).text == here.generate("Once", max_tokens=10).text


# ---------------------------------------------------------------- no code of others
def test_code_in_the_folder_isnt_run(copy: Path, tmp_path: Path) -> None:
    (copy / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    change(
        copy, model_type="own", auto_map={"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    )
    with pytest.raises(aiaas.BundleError) as told:
        opened(copy)
    assert "no code of a model is run" in str(told.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_code_on_the_hub_isnt_fetched(copy: Path, key: str) -> None:
    change(copy, nested={key: "kernels-community/anything"})
    with pytest.raises(aiaas.UnsafeBundleError, match="code from the hub"):
        aiaas.load(f"hf:{copy}")


def test_pickled_weights_arent_read(copy: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(aiaas.BundleError, match="Pickled weights"):
        aiaas.load(f"hf:{copy}")
    (copy / "other.safetensors").write_bytes(b"\0" * 16)  # one that isn't the model's
    with pytest.raises(aiaas.BundleError, match="safetensors"):
        opened(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("target", [None, "/dev/zero"], ids=["pipe", "device"])
def test_what_has_no_end_isnt_read(copy: Path, name: str, target: str | None) -> None:
    (copy / name).unlink()
    if target is None:
        os.mkfifo(copy / name)
    else:
        (copy / name).symlink_to(target)
    with pytest.raises(aiaas.BundleError):
        opened(copy)


@pytest.mark.parametrize("place", ["x" * 5000, "loop"], ids=["long", "loop"])
def test_a_place_that_leads_nowhere_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(aiaas.ModelNotFoundError):
        aiaas.load(f"hf:{tmp_path / place}")


def test_an_adapter_names_another_model(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "org/model"}')
    with pytest.raises(aiaas.UnsupportedOperationError, match="adapter"):
        aiaas.load(f"hf:{copy}")


def test_nothing_is_asked_of_the_network(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "generation_config.json").unlink()  # what isn't there is looked for elsewhere by default

    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with aiaas.load(f"hf:{copy}") as model:
        assert model.generate("Once", max_tokens=2).usage.output_tokens == 2


# ---------------------------------------------------------------- damage
@pytest.mark.parametrize("left", [0, 7, 1000, -1])
def test_weights_that_are_cut_short(copy: Path, left: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(aiaas.BundleError, match="can't read"):
        opened(copy)


def test_weights_that_lack_some_arent_made_up(copy: Path) -> None:
    """transformers draws what is missing at random, and says so in its log alone."""
    from safetensors.torch import load_file, save_file

    state = load_file(copy / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(aiaas.BundleError, match=r"lacks 1 of its weights, 'model\.layers\.1\.mlp"):
        opened(copy)


def test_settings_that_are_no_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(aiaas.BundleError, match="isn't JSON"):
        aiaas.load(f"hf:{copy}")


def test_a_model_for_something_else(copy: Path) -> None:
    change(copy, architectures=["ViTForImageClassification"])
    with pytest.raises(aiaas.UnsupportedOperationError, match="ViTForImageClassification"):
        aiaas.load(f"hf:{copy}")


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises((aiaas.BundleError, aiaas.BackendNotInstalledError)):
        opened(tmp_path / "model.gguf")


def test_opening_says_nothing_on_the_terminal(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened(copy)
    assert capfd.readouterr() == ("", "")
