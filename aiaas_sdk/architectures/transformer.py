"""Transformers: decoder, encoder, both, and of images, after the papers that each is named for in `shape.KINDS`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.activations import activation
from aiaas_sdk.architectures.attention import Attention, Cache, Past, rotation
from aiaas_sdk.architectures.checks import FLOATS, TOKENS, Inputs
from aiaas_sdk.architectures.patches import Patches
from aiaas_sdk.architectures.shape import Shape
from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import ConfigError, InputError

__all__ = ["Transformer"]

FITTING = (
    'text: {"NAME": ("INT64", [-1, -1])}',
    'text of different lengths: {"input_ids": ("INT64", [-1, -1]), "attention_mask": ("INT64", [-1, -1])}',
    'images, with labels: {"NAME": ("FP32", [-1, CHANNELS, HEIGHT, WIDTH])}',
)


def _norm(shape: Shape) -> nn.Module:
    kind = nn.RMSNorm if shape.norm == "rms" else nn.LayerNorm
    assert shape.norm_eps is not None
    return kind(shape.width, eps=shape.norm_eps)


class Embedding(nn.Module):
    """Tokens as vectors, with where they stand, and of which text, added where the shape says so."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._sinusoidal = shape.positions == "sinusoidal"
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if shape.positions == "learned" else None
        self.types = nn.Embedding(shape.token_types, shape.width) if shape.token_types else None
        # BERT normalises here, too
        self.norm = _norm(shape) if shape.kind == "encoder" and not shape.norm_first else None

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        x: Tensor = self.tokens(ids)
        if self._sinusoidal:
            x = x * math.sqrt(x.shape[-1]) + _waves(positions, x.shape[-1]).to(x.dtype)
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.types is not None:
            x = x + self.types.weight[0]
        return x if self.norm is None else self.norm(x)


def _waves(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal positions, "Attention Is All You Need", section 3.5: sines and cosines in turns."""
    steps = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * torch.exp(steps * (-math.log(10000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class FeedForward(nn.Module):
    """Two dense layers; gated, as in Shazeer 2020, "GLU Variants", a third one weighs what the first gives."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        assert shape.feedforward is not None
        self._activation = activation(str(shape.activation))
        self.gate = nn.Linear(shape.width, shape.feedforward, bool(shape.bias)) if shape.gated else None
        self.up = nn.Linear(shape.width, shape.feedforward, bool(shape.bias))
        self.down = nn.Linear(shape.feedforward, shape.width, bool(shape.bias))

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        wide = self._activation(up) if self.gate is None else self._activation(self.gate(x)) * up
        answer: Tensor = self.down(wide)
        return answer


class Block(nn.Module):
    """Attention and feed-forward, each added to what came in, and normalised before or after."""

    def __init__(self, shape: Shape, cross: bool) -> None:
        super().__init__()
        assert shape.kv_heads is not None
        assert shape.head_width is not None
        sizes = shape.width, shape.heads, shape.kv_heads, shape.head_width, bool(shape.bias)
        self._first = shape.norm_first
        self.attention, self.attention_norm = Attention(*sizes), _norm(shape)
        self.cross = Attention(*sizes) if cross else None
        self.cross_norm = _norm(shape) if cross else None
        self.feedforward, self.feedforward_norm = FeedForward(shape), _norm(shape)

    def forward(self, x: Tensor, look: Mapping[str, Any], other: Tensor | None, other_mask: Tensor | None) -> Tensor:
        if self._first:
            x = x + self.attention(self.attention_norm(x), **look)
            if self.cross is not None and self.cross_norm is not None:
                x = x + self.cross(self.cross_norm(x), other, mask=other_mask)
            return x + self.feedforward(self.feedforward_norm(x))  # type: ignore[no-any-return]
        x = self.attention_norm(x + self.attention(x, **look))
        if self.cross is not None and self.cross_norm is not None:
            x = self.cross_norm(x + self.cross(x, other, mask=other_mask))
        return self.feedforward_norm(x + self.feedforward(x))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """The layers, one after the other."""

    def __init__(self, shape: Shape, cross: bool = False) -> None:
        super().__init__()
        self._rotary = (shape.head_width, shape.theta, shape.stretch) if shape.positions == "rotary" else None
        self.blocks = nn.ModuleList(Block(shape, cross) for _ in range(shape.layers))
        self.norm = _norm(shape) if shape.norm_first else None

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        past: Past | None = None,
        other: Tensor | None = None,
        other_mask: Tensor | None = None,
    ) -> Tensor:
        rotate = rotation(positions, *self._rotary) if self._rotary else None  # type: ignore[arg-type]
        look = {"mask": mask, "causal": causal, "rotate": rotate, "past": past}
        for layer, block in enumerate(self.blocks):
            x = block(x, {**look, "layer": layer}, other, other_mask)
        return x if self.norm is None else self.norm(x)


@architecture("transformer")
class Transformer(nn.Module):
    """A Transformer of one of four kinds. What isn't given is as the kind's paper has it (`shape.KINDS`).

    ==================  ======================================  ====================================================
    kind                input, int64 of (rows, tokens)          output
    ==================  ======================================  ====================================================
    decoder             input_ids                               logits (rows, tokens, vocabulary) of each next token
    encoder             input_ids, attention_mask (0 or 1)      hidden (rows, tokens, width); embedding (rows, width)
    the same, classes   input_ids, attention_mask (0 or 1)      logits (rows, classes)
    encoder_decoder     input_ids, decoder_input_ids            logits (rows, decoder tokens, vocabulary)
    vision              images, float                           logits (rows, classes)
                        (rows, channels, height, width)
    ==================  ======================================  ====================================================

    Args:
        kind: "decoder" (Llama), "encoder" (BERT), "encoder_decoder" (the original) or "vision" (ViT).
        vocabulary: how many tokens there are.
        width: of a token's vector.
        layers: how many; of an encoder_decoder so many in each half.
        heads, kv_heads: of attention; fewer kv_heads share keys and values. None: as many.
        head_width: of one head; None: width / heads.
        feedforward: the width inside of a layer; None: four times the width.
        context: the most tokens of a text.
        norm, norm_eps: "rms" or "layer", and what it adds before it divides.
        norm_first: normalise before attention and feed-forward, and at the end; else after them.
        activation, gated: one of `activations.ACTIVATIONS`, and whether feed-forward has a gate.
        bias: whether dense layers have one.
        positions: "rotary", "learned" or "sinusoidal"; theta, stretch: of rotary ones (`attention.rotation`).
        tied: the output's weights are the embedding's.
        token_types: how many kinds of text there are; text is of kind 0.
        classes: of an encoder: makes it a classifier of so many.
        pool: where a classifier looks: "mean" of all places, or "cls": the first token, of images a vector of its own.
            None: mean for text, cls for images.
        image: [channels, height, width] of one image.
        patch: the side of the squares that an image is cut into; None: the largest up to 16 that leaves four or more
            along each side.

    Raises:
        ConfigError: a value can't be, or two don't go together.
    """

    state_is_all = True
    """There are no tensors beside the state: it can be made without memory, and be given its weights."""

    def __init__(
        self,
        kind: str = "decoder",
        vocabulary: int = 257,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        kv_heads: int | None = None,
        head_width: int | None = None,
        feedforward: int | None = None,
        context: int = 512,
        norm: str | None = None,
        norm_first: bool | None = None,
        norm_eps: float | None = None,
        activation: str | None = None,
        gated: bool | None = None,
        bias: bool | None = None,
        positions: str | None = None,
        theta: float = 10000.0,
        stretch: Mapping[str, float] | None = None,
        tied: bool | None = None,
        token_types: int | None = None,
        classes: int | None = None,
        pool: str | None = None,
        image: Sequence[int] | None = None,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        shape = Shape(
            kind, vocabulary, width, layers, heads, kv_heads, head_width, feedforward, context, norm, norm_first,
            norm_eps, activation, gated, bias, positions, theta, stretch, tied, token_types, classes, pool, image,
            patch,
        )  # fmt: skip
        self.shape = shape
        self.config = asdict(shape)
        if kind == "vision":
            self.patches = Patches(shape)
        else:
            self.embedding = Embedding(shape)
        if kind == "encoder_decoder":
            self.encoder, self.decoder = Stack(shape), Stack(shape, cross=True)
        else:
            self.stack = Stack(shape)
        if shape.classes is not None:
            self.classifier = nn.Linear(width, shape.classes)
        elif kind != "encoder" and not shape.tied:
            self.output = nn.Linear(width, vocabulary, bias=False)

    @classmethod
    def configure(cls, inputs: Inputs, labels: Sequence[str] | None) -> Mapping[str, Any]:
        """The arguments that a signature decides: an encoder of text, with labels a classifier, or one of images."""
        found = _configured(inputs)
        return found if labels is None else {**found, "classes": len(labels)}

    @property
    def task(self) -> str | None:
        """The language verb that it serves: "generate", "embed", or none."""
        if self.shape.classes is not None:
            return None
        return {"decoder": "generate", "encoder": "embed"}.get(self.shape.kind)

    @property
    def vocabulary(self) -> int:
        return self.shape.vocabulary

    @property
    def context(self) -> int:
        return self.shape.context

    @property
    def example(self) -> dict[str, Tensor]:
        """One row of its inputs: a length of which twice as much and three fits, too."""
        if self.shape.image is not None:
            return {"images": torch.zeros(1, *self.shape.image)}
        length = min(4, (self.shape.context - 3) // 2)
        if length < 2:
            raise ConfigError(f"context is {self.shape.context}; a bundle's is 7 at least")
        ids = torch.zeros(1, length, dtype=torch.int64)
        second = {"encoder": "attention_mask", "encoder_decoder": "decoder_input_ids"}.get(self.shape.kind)
        return {"input_ids": ids, **({second: torch.ones_like(ids)} if second else {})}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """See the class. A decoder takes an attention_mask, too: rows of different lengths padded on either side.

        Images may stand first as well.
        """
        first = images if input_ids is None else input_ids
        if first is None:
            raise InputError("it takes input_ids, or images")
        if self.shape.kind == "vision":
            return self._seen(first)
        input_ids = first
        self._check(input_ids)
        mask = None if attention_mask is None else attention_mask.bool()
        if self.shape.kind == "encoder":
            return self._encoded(input_ids, mask)
        if self.shape.kind == "decoder":
            return {"logits": self._logits(self._decoded(input_ids, mask))}
        if decoder_input_ids is None:
            raise InputError("an encoder_decoder takes decoder_input_ids, too")
        self._check(decoder_input_ids)
        x = self.encoder(self.embedding(input_ids, _counted(input_ids)), _counted(input_ids), mask=_keys(mask))
        places = _counted(decoder_input_ids)
        y = self.embedding(decoder_input_ids, places)
        y = self.decoder(y, places, causal=True, other=x, other_mask=_keys(mask))
        return {"logits": self._logits(y)}

    def _check(self, ids: Tensor) -> None:
        """A wrong id would be a crash that says nothing, and on CUDA the end of the process's context."""
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= self.shape.context:
            raise InputError(
                f"token ids of shape {list(ids.shape)}; it takes (rows, tokens), of 1 to {self.shape.context} tokens"
            )
        if torch.compiler.is_exporting():  # a program can't depend on what the ids are
            return
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape.vocabulary:
            raise InputError(f"a token id isn't from 0 to {self.shape.vocabulary - 1}")

    def _encoded(self, ids: Tensor, mask: Tensor | None) -> Tensor | dict[str, Tensor]:
        places = _counted(ids)
        hidden: Tensor = self.stack(self.embedding(ids, places), places, mask=_keys(mask))
        if self.shape.pool == "cls":
            return self._classified(hidden[:, 0])
        weights = (torch.ones_like(ids) if mask is None else mask).to(hidden.dtype)[..., None]
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        if self.shape.classes is not None:
            return self._classified(mean)
        return {"hidden": hidden, "embedding": functional.normalize(mean, dim=-1)}

    def _seen(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        hidden: Tensor = self.stack(x, _counted(x))
        return self._classified(hidden[:, 0] if self.shape.pool == "cls" else hidden.mean(1))

    def _classified(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pooled)
        return logits

    def _decoded(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            places = _counted(ids)
            hidden: Tensor = self.stack(self.embedding(ids, places), places, causal=True)
            return hidden
        places = (mask.long().cumsum(1) - 1).clamp(min=0)
        size = ids.shape[1]
        earlier = torch.ones(size, size, dtype=torch.bool, device=ids.device).tril()
        # a padding token looks at itself, or its softmax would be of nothing
        look = (earlier & mask[:, None, :]) | torch.eye(size, dtype=torch.bool, device=ids.device)
        padded: Tensor = self.stack(self.embedding(ids, places), places, mask=look[:, None])
        return padded

    def _logits(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.tokens.weight if self.shape.tied else self.output.weight
        return functional.linear(hidden, weight)

    # ------------------------------------------------------------ going on from what was computed
    def cache(self) -> Cache:
        """An empty memory for `advance`."""
        if self.shape.kind != "decoder":
            raise ConfigError(f"{with_article(self.shape.kind)} has no cache; a decoder has")
        assert self.shape.kv_heads is not None
        assert self.shape.head_width is not None
        like = self.embedding.tokens.weight
        return Cache(self.shape.layers, self.shape.kv_heads, self.shape.head_width, like)

    def advance(self, ids: Tensor, past: Past) -> Tensor:
        """The logits (rows, vocabulary) after the last of the new tokens (rows, tokens), which `past` places.

        They are those of `forward` on the whole rows, up to rounding; only what is new is computed.
        """
        x = self.embedding(ids, past.positions)
        x = self.stack(x, past.positions, mask=past.mask, causal=past.causal, past=past)
        return self._logits(x[:, -1])


def _configured(inputs: Inputs) -> dict[str, Any]:
    match list(inputs.values()):
        case [(datatype, (_, channels, height, width))] if datatype in FLOATS and min(channels, height, width) > 0:
            return {"kind": "vision", "image": [channels, height, width]}
        case [(datatype, (_, tokens)), *others] if datatype in TOKENS:
            names = [*inputs]
            if not others or (names == ["input_ids", "attention_mask"] and len(others[0][1]) == 2):
                return {"kind": "encoder", **({"context": tokens} if tokens > 0 else {})}
    came = ", ".join(f"{name} {datatype} {list(shape)}" for name, (datatype, shape) in inputs.items())
    raise ConfigError(
        f"the architecture 'transformer' says itself what it takes, and that isn't {came}",
        hint=f"Leave inputs= out, and give config=; or give {'; or '.join(FITTING)}",
    )


def _counted(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device)[None].expand(ids.shape[0], -1)


def _keys(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None, None, :]
