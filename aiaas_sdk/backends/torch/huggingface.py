"""A model's folder as the Hugging Face hub has it: config.json, *.safetensors, tokenizer.json, and what lies there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch import weights
from aiaas_sdk.backends.torch.importing import TEMPLATE, TOKENIZER, Found
from aiaas_sdk.backends.torch.tokenizing import FileTokenizer
from aiaas_sdk.bundle.weights import check
from aiaas_sdk.errors import BundleError, InputError, UnsupportedOperationError

__all__ = ["read"]

LARGEST = 1 << 28
"""Bytes of a file that isn't weights."""
Renamed = tuple[tuple[str, str | None], ...]

LLAMA: Renamed = (
    (r"model\.embed_tokens\.", "embedding.tokens."),
    (r"model\.norm\.", "stack.norm."),
    (r"lm_head\.", "output."),
    (r"model\.layers\.(\d+)\.self_attn\.rotary_emb\..*", None),
    (r"model\.layers\.(\d+)\.self_attn\.q_proj\.", r"stack.blocks.\1.attention.query."),
    (r"model\.layers\.(\d+)\.self_attn\.k_proj\.", r"stack.blocks.\1.attention.key."),
    (r"model\.layers\.(\d+)\.self_attn\.v_proj\.", r"stack.blocks.\1.attention.value."),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.", r"stack.blocks.\1.attention.output."),
    (r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.", r"stack.blocks.\1.feedforward.\2."),
    (r"model\.layers\.(\d+)\.input_layernorm\.", r"stack.blocks.\1.attention_norm."),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.", r"stack.blocks.\1.feedforward_norm."),
)
BERT: Renamed = (
    (r"(bert\.)?(pooler|cls)\..*|cls\..*|(bert\.)?embeddings\.position_ids", None),
    (r"(bert\.)?embeddings\.word_embeddings\.", "embedding.tokens."),
    (r"(bert\.)?embeddings\.position_embeddings\.", "embedding.positions."),
    (r"(bert\.)?embeddings\.token_type_embeddings\.", "embedding.types."),
    (r"(bert\.)?embeddings\.LayerNorm\.", "embedding.norm."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.", r"stack.blocks.\1.attention.\2."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"stack.blocks.\1.attention.output."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"stack.blocks.\1.attention_norm."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.", r"stack.blocks.\1.feedforward.up."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.output\.dense\.", r"stack.blocks.\1.feedforward.down."),
    (r"(?:bert\.)?encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"stack.blocks.\1.feedforward_norm."),
)


def read(folder: Path) -> Found:
    """The model of a folder; `import_model` documents it."""
    config = _json(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in _KINDS:
        raise UnsupportedOperationError(
            f"{folder} holds a model of type {kind[:40]!r}", hint=f"Those of type {', '.join(_KINDS)} are known"
        )
    if not (folder / TOKENIZER).is_file():
        raise InputError(f"{folder} has no {TOKENIZER}", hint="Save the model's fast tokenizer there")
    config_of, renamed, task = _KINDS[kind]
    ours = config_of(config, folder)
    state = _renamed(_tensors(folder), renamed)
    if ours.get("tied"):
        state.pop("output.weight", None)
    tokenizer, template = _bytes(folder / TOKENIZER), _template(folder)
    beside = {TOKENIZER: tokenizer} | ({TEMPLATE: template.encode()} if template is not None else {})
    known = FileTokenizer(tokenizer, str(folder / TOKENIZER))
    language = bundle.Language(
        task=task,  # type: ignore[arg-type]  # one of the table's
        tokenizer=TOKENIZER,
        template=None if template is None else TEMPLATE,
        **_reading(folder, config, known, ours["context"]),
    )
    return Found(ours, state, language, beside)


# ---------------------------------------------------------------- facts
def _llama(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    rotary = config.get("rope_scaling") or config.get("rope_parameters") or {}
    _expect(config, folder, "hidden_act", "silu")
    _expect(config, folder, "attention_bias", False)
    _expect(config, folder, "mlp_bias", False)
    window = config.get("sliding_window")
    context = _number(config, folder, "max_position_embeddings")
    if isinstance(window, int) and window < context:
        context = window  # within the window, attention is as without one
    return {
        "kind": "decoder",
        "vocabulary": _number(config, folder, "vocab_size"),
        "width": _number(config, folder, "hidden_size"),
        "layers": _number(config, folder, "num_hidden_layers"),
        "heads": _number(config, folder, "num_attention_heads"),
        "kv_heads": config.get("num_key_value_heads"),
        "head_width": config.get("head_dim"),
        "feedforward": _number(config, folder, "intermediate_size"),
        "context": context,
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "theta": config.get("rope_theta", rotary.get("rope_theta", 10000.0)),
        "stretch": _stretch(rotary, folder),
        "tied": bool(config.get("tie_word_embeddings", False)),
    }


def _stretch(rotary: Mapping[str, Any], folder: Path) -> dict[str, float] | None:
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnsupportedOperationError(
            f"{folder} stretches its rotary positions as {str(kind)[:40]!r}; llama3 is known"
        )
    try:
        return {
            "factor": rotary["factor"],
            "low": rotary["low_freq_factor"],
            "high": rotary["high_freq_factor"],
            "context": rotary["original_max_position_embeddings"],
        }
    except KeyError as error:
        raise BundleError(f"{folder / 'config.json'} stretches its rotary positions without {error}") from None


def _bert(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    _expect(config, folder, "hidden_act", "gelu")
    _expect(config, folder, "position_embedding_type", "absolute")
    pooling = _json(folder / "1_Pooling" / "config.json") if (folder / "1_Pooling" / "config.json").is_file() else {}
    other = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on and "mean_tokens" not in key]
    if other:
        raise UnsupportedOperationError(f"{folder} pools by {other[0]}; the mean is known")
    return {
        "kind": "encoder",
        "vocabulary": _number(config, folder, "vocab_size"),
        "width": _number(config, folder, "hidden_size"),
        "layers": _number(config, folder, "num_hidden_layers"),
        "heads": _number(config, folder, "num_attention_heads"),
        "feedforward": _number(config, folder, "intermediate_size"),
        "context": _number(config, folder, "max_position_embeddings"),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "token_types": _number(config, folder, "type_vocab_size"),
    }


_KINDS: Mapping[str, tuple[Callable[[Mapping[str, Any], Path], dict[str, Any]], Renamed, str]] = {
    "llama": (_llama, LLAMA, "generate"),
    "mistral": (_llama, LLAMA, "generate"),
    "bert": (_bert, BERT, "embed"),
}


def _expect(config: Mapping[str, Any], folder: Path, key: str, wanted: Any) -> None:
    if config.get(key, wanted) not in (wanted, None):
        raise UnsupportedOperationError(f"{folder} has {key} {str(config[key])[:40]!r}; {wanted!r} is known")


def _number(config: Mapping[str, Any], folder: Path, key: str) -> int:
    value = config.get(key)
    if type(value) is not int:
        raise BundleError(f"{folder / 'config.json'} has no number {key!r}")
    return value


def _reading(folder: Path, config: Mapping[str, Any], tokenizer: FileTokenizer, context: int) -> dict[str, Any]:
    """How the model reads and speaks, as the files beside its configuration say."""
    told = _maybe(folder / "tokenizer_config.json")
    drawing = _maybe(folder / "generation_config.json")
    end = drawing.get("eos_token_id", config.get("eos_token_id"))
    begin = tokenizer.id_of(_content(told.get("bos_token")))
    limit = _maybe(folder / "sentence_bert_config.json").get("max_seq_length", told.get("model_max_length"))
    if type(limit) is int and 0 < limit < context:
        context = limit
    sampling = {key: drawing[key] for key in ("temperature", "top_p", "top_k") if drawing.get(key) is not None}
    return {
        "context": context,
        "begin": begin,
        "end": [] if end is None else [end] if isinstance(end, int) else list(end),
        "sampling": sampling if drawing.get("do_sample") else {},
    }


def _content(token: Any) -> str:
    """A token's name, plain or within its description."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else ""


def _template(folder: Path) -> str | None:
    if (folder / TEMPLATE).is_file():
        return _text(folder / TEMPLATE)
    found = _maybe(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several by name
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, Mapping)}.get(
            "default"
        )
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------- files
def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise BundleError(f"{path} is larger than {LARGEST} bytes")
        return _whole(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None


def _whole(path: Path) -> bytes:
    if not path.is_file():  # a pipe or a device has no end; the hub's own cache has links to files
        raise BundleError(f"{path} is no plain file")
    return path.read_bytes()


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError:
        raise BundleError(f"{path} isn't UTF-8") from None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}", hint="A Hugging Face folder has one")
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BundleError(f"{path} isn't a JSON object")
    return found


def _maybe(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder's safetensors files. Pickled weights aren't looked at."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"{folder} has no *.safetensors", hint="Pickled weights aren't read; convert them first")
    found: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            data = bytearray(_whole(path))
        except OSError as error:
            raise BundleError(f"{path} can't be read: {error.strerror}") from None
        check(data, str(path))
        for key, tensor in weights.from_bytes(data).items():
            if key in found:
                raise BundleError(f"{folder} holds {key[:80]!r} in two files")
            found[key] = tensor
    return found


def _renamed(state: Mapping[str, torch.Tensor], table: Renamed) -> dict[str, torch.Tensor]:
    found = {}
    for key, tensor in state.items():
        name = _name(key, table)
        if name is not None:
            found[name] = tensor
    return found


def _name(key: str, table: Renamed) -> str | None:
    key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    for pattern, ours in table:
        if match := re.match(pattern, key):
            return None if ours is None else match.expand(ours) + key[match.end() :]
    return key  # the check against the architecture says that it is unknown
