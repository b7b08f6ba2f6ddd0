"""Text to tokens, and tokens to the bytes that they stand for: with a tokenizer.json, or a token for each byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

from aiaas_sdk.backends.torch.extras import brought_by
from aiaas_sdk.errors import BundleError, UnsupportedOperationError

__all__ = ["ByteTokenizer", "FileTokenizer", "Tokenizer"]


class Tokenizer(Protocol):
    """What both kinds can.

    Attributes:
        size: the number of tokens; their ids are below it.
        special: the ids of tokens that are no text (the end of an answer, say).
    """

    size: int
    special: frozenset[int]

    def encode(self, text: str, *, whole: bool) -> list[int]:
        """The tokens of a text; `whole` adds those that the model wants around one."""

    def encode_batch(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """The tokens of whole texts, each cut so that it has `limit` at most with those around it."""

    def spelling(self) -> Sequence[bytes]:
        """For each id the bytes of its text; a special one's are its name's."""

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""

    def written(self, ids: Sequence[int]) -> list[str]:
        """Each token as somebody may read it."""


class ByteTokenizer:
    """The bytes of UTF-8 are the tokens 0 to 255; 256 ends a text."""

    size = 257
    end = 256
    special = frozenset((end,))

    def encode(self, text: str, *, whole: bool) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        return [self.encode(text, whole=True)[:limit] for text in texts]

    def spelling(self) -> Sequence[bytes]:
        return [*(bytes((byte,)) for byte in range(256)), b"<end>"]

    def id_of(self, token: str) -> int | None:
        return self.end if token == "<end>" else None

    def written(self, ids: Sequence[int]) -> list[str]:
        spelled = self.spelling()
        return [spelled[id].decode(errors="replace") for id in ids]


class FileTokenizer:
    """A tokenizer.json as the library `tokenizers` reads it: data, and no code in it is run."""

    def __init__(self, data: bytes | bytearray, where: str) -> None:
        with brought_by("language"):
            import tokenizers
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(bytes(data).decode())
        except Exception as error:  # the library has no class of its own for this
            raise BundleError(f"{where} isn't a tokenizer ({str(error)[:200]})") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._where = where
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = frozenset(id for id, token in added.items() if token.special)
        self._plain = {id: token.content.encode() for id, token in added.items()}
        self._vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = 1 + max(self._vocabulary.values(), default=-1)

    def encode(self, text: str, *, whole: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=whole).ids

    def encode_batch(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        around = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if around >= limit:
            raise BundleError(f"{self._where} puts {around} tokens around each text; the model takes {limit}")
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for encoding in found:
            encoding.truncate(limit - around)
        return [self._tokenizer.post_process(encoding, add_special_tokens=True).ids for encoding in found]

    def id_of(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def written(self, ids: Sequence[int]) -> list[str]:
        try:
            spelled = self.spelling()
        except UnsupportedOperationError:  # WordPiece: the names are words
            return [self._tokenizer.id_to_token(id) or "" for id in ids]
        return [spelled[id].decode(errors="replace") for id in ids]

    @cached_property
    def _spelled(self) -> Sequence[bytes]:
        spell = self._speller()
        spelled = [b""] * self.size
        for token, id in self._vocabulary.items():
            spelled[id] = self._plain[id] if id in self._plain else spell(token)
        return spelled

    def spelling(self) -> Sequence[bytes]:
        return self._spelled

    def _speller(self) -> Any:
        """How a token's name says its bytes, which the tokenizer's decoder tells."""
        kinds = _kinds(json.loads(self._tokenizer.to_str()).get("decoder"))
        if "ByteLevel" in kinds:
            alphabet = _alphabet()
            return lambda token: bytes(map(alphabet.__getitem__, token))
        if "ByteFallback" in kinds:
            return _with_fallback
        raise UnsupportedOperationError(
            f"{self._where} has the decoder {'+'.join(kinds) or 'none'}, which answers can't be spelled with",
            hint="Byte-level tokenizers and those with byte fallback can",
        )


def _kinds(decoder: Any) -> list[str]:
    if not isinstance(decoder, dict):
        return []
    return [str(decoder.get("type")), *(kind for part in decoder.get("decoders", ()) for kind in _kinds(part))]


def _alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes with (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


def _with_fallback(token: str) -> bytes:
    """SentencePiece: a blank is written as U+2581, a byte that is no character as <0xNN>."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes((int(token[3:5], 16),))
        except ValueError:
            pass
    return token.replace("\u2581", " ").encode()
