"""The arguments of the Transformers: plain values, checked and bounded, since they may come from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiaas_sdk.architectures.activations import ACTIVATIONS
from aiaas_sdk.architectures.checks import LAYERS, choice, sizes, some_sizes
from aiaas_sdk.errors import ConfigError

__all__ = ["KINDS", "Shape"]

KINDS: Mapping[str, Mapping[str, Any]] = {
    # Touvron et al. 2023, "LLaMA"
    "decoder": {
        "norm": "rms", "norm_first": True, "norm_eps": 1e-5, "activation": "silu", "gated": True, "bias": False,
        "positions": "rotary", "tied": True, "token_types": 0,
    },
    # Devlin et al. 2018, "BERT"
    "encoder": {
        "norm": "layer", "norm_first": False, "norm_eps": 1e-12, "activation": "gelu", "gated": False, "bias": True,
        "positions": "learned", "tied": True, "token_types": 2,
    },
    # Vaswani et al. 2017, "Attention Is All You Need"
    "encoder_decoder": {
        "norm": "layer", "norm_first": False, "norm_eps": 1e-5, "activation": "relu", "gated": False, "bias": True,
        "positions": "sinusoidal", "tied": True, "token_types": 0,
    },
    # Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words"
    "vision": {
        "norm": "layer", "norm_first": True, "norm_eps": 1e-6, "activation": "gelu", "gated": False, "bias": True,
        "positions": "learned", "tied": True, "token_types": 0,
    },
}  # fmt: skip
"""What each kind is unless its arguments say otherwise."""
CHOICES = {
    "norm": ("rms", "layer"),
    "activation": tuple(ACTIVATIONS),
    "positions": ("rotary", "learned", "sinusoidal"),
}
POOLS = {"encoder": ("mean", "cls"), "vision": ("cls", "mean")}
"""Where a classifier looks, by kind; the first unless its arguments say otherwise."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Transformer's arguments; `Transformer` documents them. None takes what is usual for the kind.

    Raises:
        ConfigError: a value can't be, or two don't go together.
    """

    kind: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int | None
    head_width: int | None
    feedforward: int | None
    context: int
    norm: str | None
    norm_first: bool | None
    norm_eps: float | None
    activation: str | None
    gated: bool | None
    bias: bool | None
    positions: str | None
    theta: float
    stretch: Mapping[str, float] | None
    tied: bool | None
    token_types: int | None
    classes: int | None = None
    pool: str | None = None
    image: Sequence[int] | None = None
    patch: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}", hint=f"One of {', '.join(KINDS)}")
        sizes(vocabulary=self.vocabulary, width=self.width, layers=self.layers, heads=self.heads, context=self.context)
        self._fill({"kv_heads": self.heads, "head_width": self._head_width(), "feedforward": 4 * self.width})
        self._fill(KINDS[self.kind])
        self._check_sizes()
        self._check_choices()
        self._check_classes()
        self._check_image()

    def _fill(self, usual: Mapping[str, Any]) -> None:
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _head_width(self) -> int:
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(f"width is {self.width}, which {self.heads} heads can't share", hint="Give head_width")
        return self.width // self.heads

    def _check_sizes(self) -> None:
        assert self.kv_heads is not None
        assert self.head_width is not None
        assert self.feedforward is not None
        sizes(kv_heads=self.kv_heads, head_width=self.head_width, feedforward=self.feedforward)
        if self.token_types:
            sizes(token_types=self.token_types)
        if self.layers > LAYERS:
            raise ConfigError(f"layers is {self.layers}; there are at most {LAYERS}")
        if self.heads % self.kv_heads:
            raise ConfigError(f"heads is {self.heads}, and no multiple of kv_heads, {self.kv_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ConfigError(f"head_width is {self.head_width}; rotary positions need an even one")
        if self.positions == "sinusoidal" and self.width % 2:
            raise ConfigError(f"width is {self.width}; sinusoidal positions need an even one")

    def _check_choices(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}", hint=f"One of {', '.join(known)}")
        for name in ("norm_first", "gated", "bias", "tied"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is true or false")
        for name, low, high in (("norm_eps", 0.0, 1.0), ("theta", 1.0, 1e15)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low < value <= high:
                raise ConfigError(f"{name} is {value!r}; it is a number above {low:g} and at most {high:g}")
        if self.stretch is not None:
            self._check_stretch(self.stretch)
        if self.positions == "rotary" and self.kind == "encoder_decoder":
            raise ConfigError("positions is 'rotary'", hint="An encoder_decoder has learned or sinusoidal ones")

    def _check_classes(self) -> None:
        pools = POOLS.get(self.kind)
        for name in ("classes", "pool"):
            if pools is None and getattr(self, name) is not None:
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}, and the kind {self.kind!r} has none")
        if self.kind == "vision" and self.classes is None:
            raise ConfigError("classes isn't given; the kind 'vision' is a classifier")
        if self.classes is None:
            if self.pool is not None:
                raise ConfigError(f"pool is {self.pool!r:.80} without classes", hint="Give classes, or leave pool out")
            return
        assert pools is not None
        sizes(classes=self.classes)
        self._fill({"pool": pools[0]})
        choice("pool", self.pool, pools)

    def _check_image(self) -> None:
        if self.kind != "vision":
            for name in ("image", "patch"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} is {getattr(self, name)!r:.80}, and the kind {self.kind!r} has none")
            return
        image = some_sizes("image", self.image, least=3)
        if len(image) != 3:
            raise ConfigError(f"image is {image!r:.80}; it is [channels, height, width]")
        object.__setattr__(self, "image", image)
        _, height, width = image
        self._fill({"patch": _patch(height, width)})
        assert self.patch is not None
        sizes(patch=self.patch)
        if height % self.patch or width % self.patch:
            raise ConfigError(f"patch is {self.patch}, and {height} x {width} isn't made of such squares")
        if self.positions != "learned":
            raise ConfigError(f"positions is {self.positions!r}; of images they are 'learned'")

    def _check_stretch(self, stretch: Any) -> None:
        wanted = ("factor", "low", "high", "context")
        if not isinstance(stretch, Mapping) or set(stretch) != set(wanted):
            raise ConfigError(f"stretch is {stretch!r:.80}; it has {', '.join(wanted)}")
        for name in wanted:
            if type(stretch[name]) not in (int, float) or not 0 < stretch[name] <= 1e9:
                raise ConfigError(f"stretch's {name} is {stretch[name]!r:.80}; it is a number above 0")
        if not stretch["low"] < stretch["high"]:
            raise ConfigError("stretch's low isn't below its high")


def _patch(height: int, width: int) -> int:
    """The largest square up to 16 x 16 of which an image has four or more along each side; 1 where there is none."""
    most = min(16, height // 4, width // 4)
    return next((size for size in range(most, 1, -1) if height % size == 0 and width % size == 0), 1)
