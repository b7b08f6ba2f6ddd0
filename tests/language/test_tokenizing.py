"""Text to tokens and their bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer, FileTokenizer
from aiaas_sdk.errors import BundleError, UnsupportedOperationError


@pytest.fixture(scope="module")
def words(llama: Path) -> FileTokenizer:
    return FileTokenizer((llama / "tokenizer.json").read_bytes(), "t")


@given(text=some.text(max_size=30))
def test_the_bytes_of_tokens_are_the_text(words: FileTokenizer, text: str) -> None:
    for tokenizer in (words, ByteTokenizer()):
        spelled = tokenizer.spelling()
        assert b"".join(spelled[token] for token in tokenizer.encode(text, whole=True)) == text.encode()


def test_special_tokens_are_one_token_and_no_text(words: FileTokenizer) -> None:
    end = words.id_of("<|im_end|>")
    assert words.encode("a<|im_end|>", whole=False)[-1] == end
    assert end in words.special
    assert words.size == len(words.spelling()) == 288


def _sentencepiece() -> bytes:
    """A tokenizer as SentencePiece's models have it: blanks as U+2581, bytes as <0xNN>."""
    vocabulary = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("▁hi", -1.0), ("▁", -2.0)]
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                ],
            },
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": True},
        }
    ).encode()


def test_byte_fallback() -> None:
    tokenizer = FileTokenizer(_sentencepiece(), "t")
    ids = tokenizer.encode(" hi é", whole=False)
    assert b"".join(tokenizer.spelling()[id] for id in ids) == " hi é".encode()


def test_texts_are_cut_with_what_stands_around_them() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "a": 2, "[UNK]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    made.enable_truncation(3)
    made.enable_padding(length=9)
    tokenizer = FileTokenizer(made.to_str().encode(), "t")
    assert tokenizer.encode_batch(["a a a a a a", "a", ""], 5) == [[0, 2, 2, 2, 1], [0, 2, 1], [0, 1]]
    with pytest.raises(BundleError, match="puts 2 tokens around each text"):
        tokenizer.encode_batch(["a"], 2)
    with pytest.raises(UnsupportedOperationError, match="can't be spelled"):
        tokenizer.spelling()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"version": "1.0", "model": {"type": "X"}}'])
def test_what_is_no_tokenizer(data: bytes) -> None:
    with pytest.raises(BundleError, match="isn't a tokenizer"):
        FileTokenizer(data, "t")


def test_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("é", whole=True) == [0xC3, 0xA9]
    assert tokenizer.encode_batch(["abc"], 2) == [[97, 98]]
    assert tokenizer.id_of("<end>") == 256
    found: Any = tokenizer.special
    assert found == {256}
