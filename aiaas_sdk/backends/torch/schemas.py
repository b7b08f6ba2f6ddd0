"""Answers that fit a JSON schema: at each step only tokens that keep the answer on the way to one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aiaas_sdk.backends.torch.extras import brought_by
from aiaas_sdk.backends.torch.tokenizing import Tokenizer
from aiaas_sdk.errors import InputError, ModelError

__all__ = ["Constraint", "Constraints"]

COMPACT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Blanks where they always stand and nowhere else: a model that is unsure would go on writing them."""


NEAR = 4
"""An answer is watched for room to end when so many times its shortest length are left."""
STEPS = 2000
"""Tokens after which a way out isn't looked for any further."""
CLOSING = (b'"', b"}", b"]", b",", b", ")
"""What ends what is open: in this order, since the others may be letters of a text."""


class Constraint:
    """The way of one answer through its schema.

    Args:
        matcher: llguidance's, at the beginning.
        closing: the tokens of `CLOSING`.
        limit: the most tokens of the answer.

    Raises:
        InputError: no answer is so short.
    """

    def __init__(self, matcher: Any, closing: Sequence[int], limit: int) -> None:
        self._matcher, self._closing, self._left = matcher, closing, limit
        shortest = self._way_out(matcher)
        if shortest is not None and len(shortest) > limit:
            raise InputError(
                f"max_tokens leaves {limit} tokens, and the shortest answer that fits the schema has {len(shortest)}"
            )
        self._near = -1 if shortest is None else NEAR * len(shortest) + 32
        self._ending = False

    def mask(self, logits: Tensor) -> Tensor:
        """The logits (vocabulary,) with -inf for tokens that can't come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool))
        if not bool(allowed.any()):
            raise ModelError(f"no token can follow under the schema ({self._matcher.get_error()[:200]})")
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def within(self, token: int) -> int:
        """The token that was drawn, or another one where the answer couldn't be ended in time after it."""
        if self._left > self._near:
            return token
        after = self._matcher.deep_copy()
        after.consume_token(token)
        way = self._way_out(after)
        if way is not None and len(way) < self._left:
            return token
        way = self._way_out(self._matcher)
        self._ending = bool(way)
        return way[0] if way else token

    def take(self, token: int) -> bool:
        """The token stands; True when the answer is whole."""
        self._left -= 1
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise ModelError(f"the schema can't be followed further ({self._matcher.get_error()[:200]})")
        return bool(self._matcher.is_stopped() or (self._ending and self._matcher.is_accepting()))

    def _way_out(self, matcher: Any) -> list[int] | None:
        """Tokens that end an answer soon; None where that doesn't come to an end."""
        way: list[int] = []
        matcher = matcher.deep_copy()
        while not matcher.is_accepting():
            if matcher.is_error() or len(way) == STEPS:
                return None
            way.append(self._nearest(matcher))
            matcher.consume_token(way[-1])
        return way

    def _nearest(self, matcher: Any) -> int:
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        for token in self._closing:
            if bits[token >> 3] >> (token & 7) & 1:
                return token
        byte = int(np.flatnonzero(bits)[0]) if bits.any() else 0
        return 8 * byte + int(np.unpackbits(bits[byte : byte + 1], bitorder="little").argmax())


class Constraints:
    """Makes constraints for one model; llguidance knows its tokens."""

    def __init__(self, tokenizer: Tokenizer, spelling: Sequence[bytes], end: Sequence[int]) -> None:
        with brought_by("language"):
            import llguidance
        self._library = llguidance
        if not end:
            raise InputError("this model has no token that ends an answer, which a schema needs")
        ids = {word: id for id, word in enumerate(spelling) if word in CLOSING and id not in tokenizer.special}
        self._closing = [ids[word] for word in CLOSING if word in ids]
        words = _Words(tokenizer, spelling, end[0])
        self._tokens = self._library.LLTokenizer(llguidance.TokenizerWrapper(words), eos_token=list(end))

    def of(self, schema: Mapping[str, Any], limit: int, count: int) -> tuple[Constraint, ...]:
        """The constraints for so many answers of so many tokens. InputError where the schema can't be one."""
        matcher = self._library.LLMatcher
        try:
            grammar = matcher.grammar_from_json_schema(json.dumps(schema), defaults=COMPACT)
            found = matcher(self._tokens, grammar, log_level=0)
            told = found.get_error()
        except ValueError as error:
            told = str(error)
        if told:
            raise InputError(f"the answer's schema can't be followed: {told.splitlines()[0][:300]}")
        return tuple(Constraint(found.deep_copy(), self._closing, limit) for _ in range(count))


class _Words:
    """A tokenizer as llguidance asks for one."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, spelling: Sequence[bytes], end: int) -> None:
        self._tokenizer = tokenizer
        self.tokens, self.eos_token_id = list(spelling), end
        self.special_token_ids = sorted(tokenizer.special)

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("this one takes text")  # the library tries which it is
        return self._tokenizer.encode(text, whole=False)
