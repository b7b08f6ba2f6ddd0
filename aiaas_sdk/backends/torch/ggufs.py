"""A GGUF file: llama.cpp's format for weights, mostly quantised, with the tokenizer beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch.extras import brought_by
from aiaas_sdk.backends.torch.importing import TEMPLATE, TOKENIZER, Found
from aiaas_sdk.errors import AiaasError, BundleError, UnsupportedOperationError

__all__ = ["read"]

NAMES = {
    "token_embd": "embedding.tokens",
    "output_norm": "stack.norm",
    "output": "output",
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.output",
    "ffn_norm": "feedforward_norm",
    "ffn_gate": "feedforward.gate",
    "ffn_up": "feedforward.up",
    "ffn_down": "feedforward.down",
}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)")
STRETCH = "rope_freqs.weight"
CONTROL = 3
"""The type of tokens that are no text."""
DIGITS = {
    # how the numbers of a text are split before its bytes are
    "smollm": True,
    "gpt-2": False,
    "default": False,
}


def read(path: Path) -> Found:
    """The model of a file; `import_model` documents it."""
    with brought_by("gguf"):
        import gguf
    try:
        reader = gguf.GGUFReader(path)
        facts = {key: field.contents() for key, field in reader.fields.items()}
        return _found(reader, facts, path)
    except AiaasError:
        raise
    except Exception as error:  # the library leaves it to Python to notice what is wrong
        raise BundleError(f"{path} can't be read as GGUF ({type(error).__name__}: {str(error)[:200]})") from error


def _found(reader: Any, facts: Mapping[str, Any], path: Path) -> Found:
    kind = facts.get("general.architecture")
    if kind != "llama":
        raise UnsupportedOperationError(f"{path} holds a model of type {str(kind)[:40]!r}", hint="llama is known")
    stretched = facts.get("llama.rope.scaling.type", "none") != "none"
    if stretched or any(tensor.name == STRETCH for tensor in reader.tensors):
        raise UnsupportedOperationError(f"{path} stretches its rotary positions")
    config = _config(facts)
    state = dict(_tensor(tensor, config, path) for tensor in reader.tensors)
    config["tied"] = "output.weight" not in state
    config["vocabulary"] = state["embedding.tokens.weight"].shape[0]
    template = facts.get("tokenizer.chat_template")
    beside = {TOKENIZER: _tokenizer(facts, path)} | ({TEMPLATE: template.encode()} if template else {})
    language = bundle.Language(
        task="generate",
        tokenizer=TOKENIZER,
        template=TEMPLATE if template else None,
        context=config["context"],
        begin=facts.get("tokenizer.ggml.bos_token_id"),
        end=[
            facts[f"tokenizer.ggml.{key}_token_id"]
            for key in ("eos", "eot")
            if f"tokenizer.ggml.{key}_token_id" in facts
        ],
    )
    metadata = {key: facts[f"general.{key}"] for key in ("name", "license") if f"general.{key}" in facts}
    return Found(config, state, language, beside, metadata)


def _config(facts: Mapping[str, Any]) -> dict[str, Any]:
    def fact(key: str) -> Any:
        return facts[f"llama.{key}"]

    heads = fact("attention.head_count")
    return {
        "kind": "decoder",
        "width": fact("embedding_length"),
        "layers": fact("block_count"),
        "heads": heads,
        "kv_heads": facts.get("llama.attention.head_count_kv", heads),
        "head_width": facts.get("llama.attention.key_length", fact("embedding_length") // heads),
        "feedforward": fact("feed_forward_length"),
        "context": fact("context_length"),
        # written as float32; its shortest decimal is what was meant
        "norm_eps": float(str(np.float32(fact("attention.layer_norm_rms_epsilon")))),
        "theta": float(facts.get("llama.rope.freq_base", 10000.0)),
    }


# ---------------------------------------------------------------- weights
def _tensor(tensor: Any, config: Mapping[str, Any], path: Path) -> tuple[str, torch.Tensor]:
    match = _NAME.fullmatch(tensor.name)
    if match is None or match[2] not in NAMES:
        raise UnsupportedOperationError(f"{path} holds the tensor {tensor.name[:80]!r}, which a Llama has not")
    from gguf import quants

    try:
        values = quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        raise UnsupportedOperationError(
            f"{path} is quantised as {tensor.tensor_type.name}, which can't be read"
        ) from None
    found = torch.from_numpy(np.array(values, dtype=np.float32))
    if match[2] in ("attn_q", "attn_k"):
        found = _apart(found, config["heads"] if match[2] == "attn_q" else config["kv_heads"])
    layer = "" if match[1] is None else f"stack.blocks.{match[1]}."
    return f"{layer}{NAMES[match[2]]}.{match[3]}", found


def _apart(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary pairs stand side by side in the file; here the second halves follow the first ones."""
    pairs = weight.view(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()


# ---------------------------------------------------------------- tokenizer
def _tokenizer(facts: Mapping[str, Any], path: Path) -> bytes:
    """The file's byte-level BPE as a tokenizer.json."""
    with brought_by("language"):
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    kind, split = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split not in DIGITS:
        raise UnsupportedOperationError(
            f"{path} has a tokenizer of type {str(kind)[:40]!r} ({str(split)[:40]!r})",
            hint=f"gpt2 with {', '.join(DIGITS)} is known; a Hugging Face folder brings its own",
        )
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges))
    split_first = [pre_tokenizers.Digits(individual_digits=True)] if DIGITS[split] else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*split_first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    )
    if facts.get("tokenizer.ggml.add_bos_token"):
        begin = facts["tokenizer.ggml.bos_token_id"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{tokens[begin]} $A", special_tokens=[(tokens[begin], begin)]
        )
    return json.dumps(json.loads(made.to_str()), ensure_ascii=False, separators=(",", ":")).encode()
