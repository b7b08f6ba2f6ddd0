"""Attention, rotary positions, and the memory of keys and values that generation goes on from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Cache", "Past", "attend", "rotation"]

Stretch = Mapping[str, float]
"""`factor`, `low`, `high` and `context` of rotary positions that were stretched."""
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the positions' angles, each (rows, 1, tokens, head_width / 2)."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """`Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V`.

    Vaswani et al. 2017, "Attention Is All You Need", equation 1. Several heads of queries may share one head of keys
    and values (Ainslie et al. 2023, "GQA").

    Args:
        query: (rows, heads, tokens, d_k).
        key, value: (rows, key heads, keys, d_k); heads is a multiple of the key heads.
        mask: bool, broadcast to (rows, heads, tokens, keys); True where a token may look.
        causal: instead of a mask: each token looks at itself and what is before it.

    Returns:
        (rows, heads, tokens, d_k).
    """
    rows, heads, tokens, width = query.shape
    shared = heads != key.shape[1]
    if shared and tokens == 1:
        # one token: the heads of a group serve as so many queries, and no key is repeated for them
        folded = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
        return functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask).view(rows, heads, 1, width)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal and tokens > 1, enable_gqa=shared
    )


def rotation(positions: Tensor, width: int, theta: float, stretch: Stretch | None = None) -> Rotation:
    """The angles of rotary positions (Su et al. 2021, "RoFormer"), in float32: position * theta^(-2i / width).

    Args:
        positions: (rows, tokens), whole numbers.
        width: of one head, an even number.
        stretch: makes the slow turns slower, for longer texts than the model was first taught.
    """
    steps = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    turns = 1.0 / theta ** (steps / width)
    if stretch is not None:
        turns = _stretched(turns, stretch)
    angles = positions[:, None, :, None].float() * turns
    return angles.cos(), angles.sin()


def _stretched(turns: Tensor, stretch: Stretch) -> Tensor:
    """As Llama 3.1 does it.

    A turn that fits less than `low` times into the first context is divided by the factor, one that fits more than
    `high` times stays, and between them it goes over smoothly.
    """
    fits = stretch["context"] * turns / (2 * math.pi)
    kept = ((fits - stretch["low"]) / (stretch["high"] - stretch["low"])).clamp(0.0, 1.0)
    return (1.0 - kept) * turns / stretch["factor"] + kept * turns


def _rotated(x: Tensor, by: Rotation) -> Tensor:
    """Each pair (i, i + width / 2) of a head turned by its angle."""
    cos, sin = by[0].to(x.dtype), by[1].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Cache:
    """Keys and values of several sequences, each in a row of its own, from the row's beginning.

    For each layer two tensors (rows, key heads, capacity, head_width).
    """

    def __init__(self, layers: int, heads: int, width: int, like: Tensor) -> None:
        self._shape = heads, width
        self.rows = self.capacity = 0
        self.keys: list[Tensor] = [like.new_empty(0, heads, 0, width) for _ in range(layers)]
        self.values: list[Tensor] = [like.new_empty(0, heads, 0, width) for _ in range(layers)]

    def bytes_for(self, rows: int, capacity: int) -> int:
        """What so many rows of so many tokens take."""
        heads, width = self._shape
        return 2 * len(self.keys) * rows * heads * capacity * width * self.keys[0].element_size()

    def resize(self, rows: int, capacity: int) -> None:
        """Other numbers of rows and tokens a row; what fits into both sizes is kept."""
        if (rows, capacity) == (self.rows, self.capacity):
            return
        self.keys = [self._resized(old, rows, capacity) for old in self.keys]
        self.values = [self._resized(old, rows, capacity) for old in self.values]
        self.rows, self.capacity = rows, capacity

    def _resized(self, old: Tensor, rows: int, capacity: int) -> Tensor:
        heads, width = self._shape
        new = old.new_zeros(rows, heads, capacity, width)  # zeros: a masked place must not hold NaN
        r, c = min(rows, self.rows), min(capacity, self.capacity)
        new[:r, :, :c] = old[:r, :, :c]
        return new

    def copy(self, source: int, target: int, length: int) -> None:
        """The first tokens of one row into another."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]


@dataclass(frozen=True, slots=True)
class Past:
    """Where new tokens go in a cache, and how far they look: for rows [first, first + rows of `positions`).

    Attributes:
        positions: (rows, tokens): the place of each new token in its row.
        length: the largest place, and one.
        mask: (rows, 1, tokens, length), or None where each row looks at all of it.
        causal: instead of a mask, where the row was empty before.
    """

    cache: Cache
    first: int
    positions: Tensor
    length: int
    mask: Tensor | None
    causal: bool

    @classmethod
    def beginning(cls, cache: Cache, row: int, start: int, count: int) -> Past:
        """`count` tokens of one row, from its place `start`."""
        device = cache.keys[0].device
        places = torch.arange(start, start + count, device=device)
        whole = count == 1 or start == 0
        mask = None if whole else torch.arange(start + count, device=device)[None] <= places[:, None]
        return cls(cache, row, places[None], start + count, None if mask is None else mask[None, None], start == 0)

    @classmethod
    def step(cls, cache: Cache, lengths: Sequence[int]) -> Past:
        """One token for each of the first rows, which hold so many already."""
        device = cache.keys[0].device
        places = torch.tensor(lengths, device=device)
        length = max(lengths) + 1
        even = min(lengths) + 1 == length
        mask = None if even else (torch.arange(length, device=device)[None] <= places[:, None])[:, None, None]
        return cls(cache, 0, places[:, None], length, mask, False)

    def put(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store what is new, (rows, key heads, tokens, width), and give all that the rows hold."""
        rows, _, tokens, _ = key.shape
        keys = self.cache.keys[layer][self.first : self.first + rows]
        values = self.cache.values[layer][self.first : self.first + rows]
        if rows == 1:
            keys[:, :, self.length - tokens : self.length] = key
            values[:, :, self.length - tokens : self.length] = value
        else:
            at = torch.arange(rows, device=key.device), self.positions[:, 0]
            keys[at[0], :, at[1]] = key[:, :, 0]
            values[at[0], :, at[1]] = value[:, :, 0]
        return keys[:, :, : self.length], values[:, :, : self.length]


class Attention(nn.Module):
    """Attention with several heads: of tokens to themselves, or to those of another text.

    Args:
        width: of a token.
        heads, kv_heads: of the queries, and of keys and values.
        head_width: of each head.
        bias: whether the projections have one.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int, bias: bool) -> None:
        super().__init__()
        self._width = head_width
        self.query = nn.Linear(width, heads * head_width, bias)
        self.key = nn.Linear(width, kv_heads * head_width, bias)
        self.value = nn.Linear(width, kv_heads * head_width, bias)
        self.output = nn.Linear(heads * head_width, width, bias)

    def forward(
        self,
        x: Tensor,
        other: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        rotate: Rotation | None = None,
        past: Past | None = None,
        layer: int = 0,
    ) -> Tensor:
        """From (rows, tokens, width) to the same; `other` is what is looked at, where that isn't `x`."""
        source = x if other is None else other
        query, key, value = self._split(self.query(x)), self._split(self.key(source)), self._split(self.value(source))
        if rotate is not None:
            query, key = _rotated(query, rotate), _rotated(key, rotate)
        if past is not None:
            key, value = past.put(layer, key, value)
        found = attend(query, key, value, mask, causal=causal)
        answer: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return answer

    def weights(
        self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False, rotate: Rotation | None = None
    ) -> Tensor:
        """How much each token looks at each, as `forward` has it: (rows, heads, tokens, tokens), rows that sum to 1."""
        query, key = self._split(self.query(x)), self._split(self.key(x))
        if rotate is not None:
            query, key = _rotated(query, rotate), _rotated(key, rotate)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2) / math.sqrt(self._width)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], x.shape[2] // self._width, self._width).transpose(1, 2)
