"""Small models that transformers makes and saves: a decoder, an encoder, a classifier, and one with its own encoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LABELS = {0: "bad", 1: "fair", 2: "good"}


def tokenizer(around: bool) -> Any:
    """A token for each byte, and four that are no text; an encoder's puts [CLS] and [SEP] around a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "<end>", "[CLS]", "[SEP]"]
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    if around:
        ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", cls_token="[CLS]", sep_token="[SEP]"
    )


def saved(model: Any, folder: Path, words: Any) -> str:
    with torch.no_grad():
        for weight in model.parameters():  # as drawn, they are so small that attention hardly matters
            if weight.ndim == 2:
                weight.mul_(8)
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The addresses of small models, by what they do."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    plain, around = tokenizer(False), tokenizer(True)
    config = {**SMALL, "vocab_size": len(plain), "max_position_embeddings": 256, "pad_token_id": plain.pad_token_id}
    ends = {"bos_token_id": None, "eos_token_id": plain.eos_token_id}
    llama = transformers.LlamaConfig(**config, **ends, num_key_value_heads=2)
    bert = transformers.BertConfig(**config, id2label=LABELS)
    t5 = transformers.T5Config(
        vocab_size=len(plain), d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8,
        decoder_start_token_id=plain.pad_token_id, pad_token_id=plain.pad_token_id, eos_token_id=plain.eos_token_id,
    )  # fmt: skip
    base = saved(transformers.LlamaForCausalLM(llama), folder / "base", plain)
    plain.chat_template = TEMPLATE
    return SimpleNamespace(
        folder=folder,
        base=base,
        chat=saved(transformers.LlamaForCausalLM(llama), folder / "chat", plain),
        encoder=saved(transformers.BertModel(bert), folder / "encoder", around),
        classifier=saved(transformers.BertForSequenceClassification(bert), folder / "classifier", around),
        translator=saved(transformers.T5ForConditionalGeneration(t5), folder / "translator", around),
    )
