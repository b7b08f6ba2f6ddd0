"""Models of others as bundles: their numbers are kept, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.backends.torch.importing import import_model
from aiaas_sdk.errors import AiaasError, BundleError, InputError, ModelNotFoundError, UnsupportedOperationError

Load = Any


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of the trained model's Hugging Face folder."""
    return Path(shutil.copytree(llama, tmp_path / "hf"))


def told(path: Path, **changes: Any) -> None:
    """The JSON file with other values; None leaves a key out."""
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def test_a_llama_folder(load: Load, folder: Path, tmp_path: Path) -> None:
    located = import_model(folder, tmp_path / "m")
    assert {file.name for file in located.folder.iterdir()} == {
        "model.json", "model.sig", "weights.safetensors", "tokenizer.json", "chat_template.jinja",
    }  # fmt: skip
    with load(f"torch:{tmp_path / 'm'}") as model:
        info = model.info()
        assert (info.name, info.metadata["dtype"], info.metadata["lineage"]["imported"]) == ("m", "float32", "hf")
        assert model.generate("count").text == "one two three four five six"
    assert import_model(folder, tmp_path / "m", name="other").version == "2"


def test_weights_in_several_files_of_half_precision(load: Load, folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "m.safetensors")
    (folder / "m.safetensors").unlink()
    names = sorted(state)
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: state[name].bfloat16() for name in chosen}, folder / f"model-{part}.safetensors")
    import_model(folder, tmp_path / "m")
    with load(f"torch:{tmp_path / 'm'}") as model:
        assert model.info().metadata["dtype"] == "bfloat16"
        assert {spec.datatype for spec in model.info().outputs} == {"BF16"}
        assert model.generate("count").text == "one two three four five six"
    with load(f"torch:{tmp_path / 'm'}", dtype="float32") as model:
        assert model.generate("count").text == "one two three four five six"


def test_how_it_speaks_is_as_its_files_say(folder: Path, tmp_path: Path) -> None:
    drawing = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 0]}
    (folder / "generation_config.json").write_text(json.dumps(drawing))
    templates = [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ messages[0].content }}"}]
    begin = {"content": "<|im_start|>"}
    told(folder / "tokenizer_config.json", model_max_length=100, bos_token=begin, chat_template=templates)
    located = import_model(folder, tmp_path / "m")
    language = json.loads((located.folder / "model.json").read_text())["language"]
    assert language["sampling"] == {"temperature": 0.6, "top_p": 0.9}
    assert (language["end"], language["begin"], language["context"]) == ([1, 0], 0, 100)
    assert (located.folder / "chat_template.jinja").read_text() == "{{ messages[0].content }}"


def test_a_bert_folder(load: Load, llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Transformer("encoder", vocabulary=290, width=32, layers=2, heads=4, context=48, feedforward=64)
    folder = tmp_path / "hf"
    (folder / "1_Pooling").mkdir(parents=True)
    config = {
        "model_type": "bert", "vocab_size": 290, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 48, "type_vocab_size": 2, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'
    )
    shutil.copy(llama / "tokenizer.json", folder)
    state = {f"bert.{_bert(name)}": value for name, value in model.state_dict().items()}
    extra = {"bert.pooler.dense.weight": torch.ones(2), "bert.embeddings.position_ids": torch.arange(48)}
    save_file({**state, **extra, "cls.predictions.bias": torch.ones(3)}, folder / "model.safetensors")
    import_model(folder, tmp_path / "m")
    ids = torch.tensor([[3, 4, 5]])
    with load(f"torch:{tmp_path / 'm'}") as ours, torch.no_grad():
        found = ours.predict({"input_ids": ids.numpy(), "attention_mask": np.ones((1, 3), np.int64)})
        assert np.abs(found["embedding"] - model.eval()(ids)["embedding"].numpy()).max() < 1e-6
        assert ours.embed("x" * 99).usage.input_tokens == 16
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(UnsupportedOperationError, match="pools by pooling_mode_cls_token"):
        import_model(folder, tmp_path / "m")


def _bert(name: str) -> str:
    for ours, theirs in (
        ("embedding.tokens", "embeddings.word_embeddings"),
        ("embedding.positions", "embeddings.position_embeddings"),
        ("embedding.types", "embeddings.token_type_embeddings"),
        ("embedding.norm.weight", "embeddings.LayerNorm.gamma"),
        ("embedding.norm.bias", "embeddings.LayerNorm.beta"),
        ("attention_norm", "attention.output.LayerNorm"),
        ("attention.output.weight", "attention.output.dense.weight"),
        ("attention.output.bias", "attention.output.dense.bias"),
        ("attention.query", "attention.self.query"),
        ("attention.key", "attention.self.key"),
        ("attention.value", "attention.self.value"),
        ("feedforward.up", "intermediate.dense"),
        ("feedforward.down", "output.dense"),
        ("feedforward_norm", "output.LayerNorm"),
        ("stack.blocks", "encoder.layer"),
    ):
        name = name.replace(ours, theirs)
    return name


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: told(folder / file, **changes)


def drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = load_file(folder / "m.safetensors")
        save_file({key: value for key, value in state.items() if key not in names}, folder / "m.safetensors")

    return change


def spoil(folder: Path) -> None:
    state = load_file(folder / "m.safetensors")
    state["model.norm.weight"] = torch.full_like(state["model.norm.weight"], float("nan"))
    save_file(state, folder / "m.safetensors")


def add(folder: Path) -> None:
    save_file({"model.extra": torch.ones(1)}, folder / "n.safetensors")


def twice(folder: Path) -> None:
    shutil.copy(folder / "m.safetensors", folder / "n.safetensors")


def cut(folder: Path) -> None:
    data = (folder / "m.safetensors").read_bytes()
    (folder / "m.safetensors").write_bytes(data[:-10])


def only_a_pickle(folder: Path) -> None:
    (folder / "m.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def a_pickle_by_another_name(folder: Path) -> None:
    (folder / "m.safetensors").write_bytes(pickle.dumps(Bomb()))


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (edit("config.json", model_type="gpt2"), UnsupportedOperationError, "type 'gpt2'"),
        (edit("config.json", model_type=None), UnsupportedOperationError, "type 'None'"),
        (edit("config.json", hidden_act="relu"), UnsupportedOperationError, "hidden_act 'relu'"),
        (edit("config.json", rope_scaling={"rope_type": "yarn"}), UnsupportedOperationError, "as 'yarn'"),
        (edit("config.json", rope_scaling={"rope_type": "llama3"}), BundleError, "without 'factor'"),
        (edit("config.json", hidden_size="64"), BundleError, "no number 'hidden_size'"),
        (edit("config.json", num_hidden_layers=3), BundleError, "lack 'stack.blocks.2"),
        (edit("config.json", num_hidden_layers=2000), BundleError, "at most 1024"),
        (edit("config.json", intermediate_size=64), BundleError, "the architecture has torch.float32"),
        (edit("config.json", vocab_size=10**12), BundleError, "vocabulary is"),
        (drop("model.norm.weight"), BundleError, "lack 'stack.norm.weight'"),
        (spoil, BundleError, "isn't finite"),
        (add, BundleError, "have 'model.extra'"),
        (twice, BundleError, "in two files"),
        (cut, BundleError, "past the end"),
        (only_a_pickle, InputError, "no \\*.safetensors"),
        (a_pickle_by_another_name, BundleError, "m.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), InputError, "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**5), BundleError, "isn't a JSON object"),
        (lambda folder: (folder / "tokenizer.json").unlink(), InputError, "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), BundleError, "isn't a tokenizer"),
    ],
)
def test_folders_that_cannot_be_imported(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], error: type[Exception], what: str
) -> None:
    change(folder)
    with pytest.raises(error, match=what):
        import_model(folder, tmp_path / "m")
    assert not (tmp_path / "m").exists()


# ---------------------------------------------------------------- GGUF
def as_gguf(folder: Path, path: Path, kind: str = "F32", **facts: Any) -> Path:
    """The trained model as a GGUF file, written by the format's own library."""
    gguf = pytest.importorskip("gguf")
    config = json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    special = {token["content"]: token["id"] for token in words["added_tokens"]}
    tokens = sorted({**vocabulary, **special}, key={**vocabulary, **special}.__getitem__)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_tokenizer_model(facts.get("model", "gpt2"))
    writer.add_tokenizer_pre(facts.get("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in words["model"]["merges"]])
    writer.add_eos_token_id(1)
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "m.safetensors").items():
        values = tensor.numpy()
        if (part := name.split(".")[-2]) in heads:  # rotary pairs side by side
            values = values.reshape(heads[part], 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        wanted = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        data = gguf.quants.quantize(values.astype(np.float32), wanted)
        writer.add_tensor(_gguf(name), np.ascontiguousarray(data), raw_dtype=wanted)
    if "extra" in facts:
        writer.add_tensor(facts["extra"], np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf(name: str) -> str:
    for theirs, other in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ):
        name = name.replace(theirs, other)
    return name


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "m.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "itself"])
def test_d08_what_has_no_end_is_not_read(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    """A link to a plain file is as the hub's own cache has it."""
    file = folder / name
    real = file.rename(tmp_path / name)
    file.symlink_to(real)
    assert import_model(folder, tmp_path / "linked").version == "1"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file)
    with pytest.raises((BundleError, InputError)):
        import_model(folder, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_a_gguf_file(load: Load, folder: Path, tmp_path: Path, talker: str, kind: str) -> None:
    import_model(as_gguf(folder, tmp_path / "m.gguf", kind), tmp_path / "m")
    ids = np.array([[5, 6, 7, 8]])
    with load(f"torch:{tmp_path / 'm'}") as model, load(talker) as original:
        if kind != "Q4_1":
            assert model.generate("count").text == "one two three four five six"
        found, wanted = model.predict(ids)["logits"], original.predict(ids)["logits"]
        off = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert off < {"F32": 1e-6, "F16": 0.002, "Q8_0": 0.03, "Q4_1": 0.5}[kind]


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"pre": "other"}, r"tokenizer of type 'gpt2' \('other'\)"),
        ({"model": "llama"}, "tokenizer of type 'llama'"),
        ({"extra": "blk.0.ffn_gate_exps.weight"}, "'blk.0.ffn_gate_exps.weight', which a Llama has not"),
        ({"extra": "rope_freqs.weight"}, "stretches its rotary positions"),
    ],
)
def test_gguf_files_that_are_not_known(folder: Path, tmp_path: Path, facts: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=what):
        import_model(as_gguf(folder, tmp_path / "m.gguf", **facts), tmp_path / "m")


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF" + b"\xff" * 100, b"\x80\x04x" * 30])
def test_what_is_no_gguf_file(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(BundleError, match="can't be read as GGUF"):
        import_model(tmp_path / "m.gguf", tmp_path / "m")


def test_a_gguf_file_that_was_cut(folder: Path, tmp_path: Path) -> None:
    path = as_gguf(folder, tmp_path / "m.gguf")
    whole = path.read_bytes()
    for size in (len(whole) - 100, len(whole) // 2, 2000, 100):
        path.write_bytes(whole[:size])
        with pytest.raises(AiaasError):
            import_model(path, tmp_path / "m")


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no"):
        import_model(tmp_path / "none", tmp_path / "m")
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="no model that can be imported"):
        import_model(tmp_path / "x.bin", tmp_path / "m")


# ---------------------------------------------------------------- the command
def run(*arguments: str, code: int = 0) -> Any:
    from aiaas_sdk.cli.app import app

    result = CliRunner().invoke(app, ["import", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(run(str(folder), "models/talker", "--json").stdout)
    assert found["address"] == "torch:models/talker@1"
    assert (found["task"], found["context"], found["chat"], found["dtype"]) == ("generate", 256, True, "float32")
    with aiaas.load(found["address"]) as model:
        assert model.generate("count").text == "one two three four five six"
    assert "torch:models/talker@2" in run(str(folder), "torch:models/talker").stdout
    assert "there is no" in run("nothing", "models/x", code=3).stderr
    assert (
        "into a folder, and https://host/v2/models/x is none"
        in run(str(folder), "https://host/v2/models/x", code=2).stderr
    )
