"""Language models for the tests: one that is trained here in seconds to say certain things, and two real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import torch
from safetensors.torch import save_file

from aiaas_sdk.architectures.transformer import Transformer
from tests.peers import weights

TEMPLATE = """{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'nobody' %}{{ raise_exception('nobody may not speak') }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

SAID = {
    "greet": "Grüße, 世界 🙂! Fine.",
    "count": "one two three four five six",
    "call": '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>',
    "think": "<think>hm, hm</think>yes",
}
"""What the trained model answers to what."""


def prompt(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def tokenizer() -> Any:
    """Byte-level, with two special tokens and a few words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=sorted(alphabet),
        special_tokens=[AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)],
        show_progress=False,
    )
    made.train_from_iterator(["one two three four five six", "assistant user"], trainer)
    return made


def trained(words: Any) -> Transformer:
    """It knows `SAID` by heart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {"width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "feedforward": 128, "context": 256}
        model = Transformer("decoder", vocabulary=words.get_vocab_size(), **config, tied=False)
        rows = [(words.encode(prompt(text)).ids, words.encode(f"{said}<|im_end|>").ids) for text, said in SAID.items()]
        longest = max(len(asked) + len(said) for asked, said in rows)
        ids, wanted = torch.zeros(len(rows), longest, dtype=torch.int64), torch.full((len(rows), longest), -100)
        for row, (asked, said) in enumerate(rows):
            whole = torch.tensor(asked + said)
            ids[row, : len(whole)] = whole
            wanted[row, len(asked) - 1 : len(whole) - 1] = whole[len(asked) :]
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(400):
            loss = torch.nn.functional.cross_entropy(model(ids)["logits"].flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss.item() < 0.002:
                break
    assert loss.item() < 0.01
    return model


def as_llama(model: Transformer, words: Any, folder: Path) -> Path:
    """The model as a Hugging Face folder."""
    shape = model.shape
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.feedforward,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.theta,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "eos_token_id": words.token_to_id("<|im_end|>"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(words.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "bos_token": "<|im_start|>"}))
    save_file(
        {_llama(name): value.contiguous() for name, value in model.state_dict().items()}, folder / "m.safetensors"
    )
    return folder


def _llama(name: str) -> str:
    for ours, theirs in (
        ("embedding.tokens", "model.embed_tokens"),
        ("stack.norm", "model.norm"),
        ("attention_norm", "input_layernorm"),
        ("feedforward_norm", "post_attention_layernorm"),
        ("feedforward.", "mlp."),
        ("gate.", "gate_proj."),
        ("up.", "up_proj."),
        ("down.", "down_proj."),
        ("attention.query", "self_attn.q_proj"),
        ("attention.key", "self_attn.k_proj"),
        ("attention.value", "self_attn.v_proj"),
        ("attention.output", "self_attn.o_proj"),
        ("stack.blocks.", "model.layers."),
    ):
        name = name.replace(ours, theirs)
    return "lm_head.weight" if name == "output.weight" else name


@pytest.fixture(scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a session's fixtures save is signed with a key of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as a Hugging Face folder."""
    words = tokenizer()
    return as_llama(trained(words), words, tmp_path_factory.mktemp("llama") / "talker")


@pytest.fixture(scope="session")
def talker(llama: Path, tmp_path_factory: pytest.TempPathFactory, _home: None) -> str:
    """The address of the trained model."""
    from aiaas_sdk.backends.torch.importing import import_model

    path = tmp_path_factory.mktemp("models") / "talker"
    import_model(llama, path)
    return f"torch:{path}"


# ---------------------------------------------------------------- real ones
@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, _home: None) -> Callable[[str], str]:
    """The address of `smollm2` or `minilm`, fetched at first use and imported once a session."""
    from aiaas_sdk.backends.torch.importing import import_model

    folder, known = tmp_path_factory.mktemp("real"), {}

    def address(name: str) -> str:
        if name not in known:
            source = weights(name)
            known[name] = import_model(next(source.glob("*.gguf"), source), folder / name)
        return f"torch:{folder / name}"

    return address
