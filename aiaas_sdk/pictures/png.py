"""A page as one PNG, drawn with pillow."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import BackendNotInstalledError
from aiaas_sdk.pictures import palette
from aiaas_sdk.pictures.scenes import Bars, Map, Page, Scene, Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["map_png", "page", "pillow"]

WIDTH, MARGIN, GAP = 760, 24, 18
SIDE = 280
"""The longer side of a map."""
THIN = 24
"""The least width of a map's shorter side."""
INK, PALE = (30, 30, 30), (150, 150, 150)
BAR, LINE = 16, 24
"""Height of a bar, and from one to the next."""
NEUTRAL = (90, 90, 90)
NOBODYS = "\U0010fffd"
"""For private use, so that a font draws what it draws for all that it lacks."""


def page(page: Page) -> bytes:
    """The picture's bytes. BackendNotInstalledError where pillow isn't installed."""
    pil = pillow()
    parts = [_heading(page), *(_scene(scene) for scene in page.scenes)]
    height = 2 * MARGIN + sum(part.height for part in parts) + GAP * (len(parts) - 1)
    image = pil.new("RGB", (WIDTH, height), "white")
    top = MARGIN
    for part in parts:
        image.paste(part, (MARGIN, top))
        top += part.height + GAP
    return _bytes(image)


def map_png(scene: Map) -> bytes:
    """The picture, what speaks for and against over it, and the legend, as a PNG of their own."""
    return _bytes(_map(scene))


def pillow() -> Any:
    """Its module of images. BackendNotInstalledError where it isn't installed."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise BackendNotInstalledError(
            "drawing needs the package pillow", hint='Install it: pip install "aiaas-sdk[plots]"'
        ) from None
    return Image


def _bytes(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _sheet(height: int, width: int = WIDTH - 2 * MARGIN) -> tuple[Image, Any]:
    image = pillow().new("RGB", (width, height), "white")
    from PIL import ImageDraw

    return image, ImageDraw.Draw(image)


def _heading(page: Page) -> Image:
    image, draw = _sheet(30 + 18 * len(page.notes))
    draw.text((0, 2), _plain(page.title), INK, _font(20))
    for number, note in enumerate(page.notes):
        draw.text((0, 32 + 18 * number), note, PALE, _font(13))
    return image


def _scene(scene: Scene) -> Image:
    if isinstance(scene, Map):
        return _titled(scene.title, _map(scene))
    return _titled(scene.title, _bars(scene) if isinstance(scene, Bars) else _tokens(scene))


def _titled(title: str, below: Image) -> Image:
    image, draw = _sheet(below.height + 24)
    draw.text((0, 0), _plain(title), INK, _font(14))
    image.paste(below, (0, 24))
    return image


def _plain(text: str) -> str:
    """A line of it: what isn't printed, or what the font has no picture of, is written as Python would."""
    return "".join(char if char.isprintable() and _is_drawn(char) else ascii(char)[1:-1] for char in text)


@cache
def _is_drawn(char: str) -> bool:
    return char.isascii() or _mask(char) != _mask(NOBODYS)


def _mask(char: str) -> tuple[Any, bytes]:
    mask = _font(15).getmask(char)
    return mask.size, bytes(mask)


# ---------------------------------------------------------------- maps
def _map(scene: Map) -> Image:
    size = _size(*scene.values.shape)
    most = palette.scale(scene.values)
    image, draw = _sheet(max(size[1], 160))
    image.paste(_scaled(scene.picture, size), (0, 0))
    image.paste(_scaled(_laid_over(scene, most), size), (size[0] + GAP, 0))
    for left in (0, size[0] + GAP):
        draw.rectangle((left, 0, left + size[0] - 1, size[1] - 1), outline=PALE)
    _upright_legend(image, draw, 2 * (size[0] + GAP), most)
    return image


def _size(height: int, width: int) -> tuple[int, int]:
    """Pixels of a map, as wide and as high; whole multiples of small ones."""
    factor = SIDE / max(height, width, 1)
    factor = max(1, int(factor)) if factor >= 1 else factor
    return max(THIN, round(width * factor)), max(THIN, round(height * factor))


def _scaled(values: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image:
    pil = pillow()
    larger = size[0] >= values.shape[1]
    resample = pil.Resampling.NEAREST if larger else pil.Resampling.BOX
    return pil.fromarray(values).resize(size, resample)  # type: ignore[no-any-return]


def _laid_over(scene: Map, most: float) -> npt.NDArray[np.uint8]:
    """The picture in pale grey, and the colours over it, the more so the larger the value is."""
    grey = scene.picture @ np.array([0.299, 0.587, 0.114])
    pale = 255 - 0.2 * (255 - grey)
    strength = np.clip(np.nan_to_num(np.abs(scene.values)) / most, 0, 1)[..., None] ** 0.6
    mixed = pale[..., None] * (1 - strength) + palette.colours(scene.values, most) * strength
    return np.asarray(mixed.round(), np.uint8)


def _upright_legend(image: Image, draw: Any, left: int, most: float) -> None:
    column = np.linspace(most, -most, 120)[:, None].repeat(14, axis=1)
    image.paste(pillow().fromarray(np.asarray(palette.colours(column, most).round(), np.uint8)), (left, 20))
    draw.rectangle((left, 20, left + 13, 139), outline=PALE)
    for y, text in ((20, f"+{most:.2g}  for"), (80, "0"), (139, f"-{most:.2g}  against")):
        draw.text((left + 20, y), text, INK, _font(12), anchor="lm")


# ---------------------------------------------------------------- bars
def _bars(scene: Bars) -> Image:
    image, draw = _sheet(LINE * max(1, len(scene.names)))
    font = _font(13)
    names = [_short(name, 30) for name in scene.names]
    label = int(max((draw.textlength(name, font) for name in names), default=0)) + 12
    most = max((abs(value) for value in scene.values), default=0.0) or 1.0
    begin, end = label, image.width - 80
    against = scene.signed and any(value < 0 for value in scene.values)
    zero = (begin + 70 + end) // 2 if against else begin
    room = end - zero
    for number, (name, value) in enumerate(zip(names, scene.values, strict=True)):
        y = LINE * number + LINE // 2
        draw.text((label - 8, y), name, INK, font, anchor="rm")
        tip = zero + round(value / most * room)
        colour = palette.css(most if value > 0 else -most, 1.6 * most) if scene.signed else NEUTRAL
        draw.rectangle((min(zero, tip), y - BAR // 2, max(zero, tip), y + BAR // 2), fill=colour)
        anchor, text = ("rm", tip - 5) if value < 0 else ("lm", tip + 5)
        draw.text((text, y), f"{value:+.3g}" if scene.signed else f"{value:.3g}", INK, font, anchor=anchor)
    draw.line((zero, 0, zero, image.height), fill=PALE)
    return image


def _short(text: str, most: int) -> str:
    plain = _plain(text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


# ---------------------------------------------------------------- tokens
def _tokens(scene: Tokens) -> Image:
    _, measure = _sheet(1)
    font, small, width = _font(15), _font(10), WIDTH - 2 * MARGIN
    most = palette.scale(np.array(scene.values))
    places, x, y = [], 0, 0
    for token, value in zip(scene.tokens, scene.values, strict=True):
        text = _short(token, 60) or " "
        wide = 8 + int(max(measure.textlength(text, font), measure.textlength(f"{value:+.2g}", small)))
        if x and x + wide > width:
            x, y = 0, y + 46
        places.append((x, y, wide, text, value))
        x += wide + 3
    image, draw = _sheet(y + 46 + 34)
    for x, y, wide, text, value in places:
        draw.rounded_rectangle((x, y, x + wide, y + 25), 3, fill=palette.css(value, most), outline=(225, 225, 225))
        draw.text((x + 4, y + 13), text, palette.ink(value, most), font, anchor="lm")
        draw.text((x + wide / 2, y + 33), f"{value:+.2g}", PALE, small, anchor="mm")
    _flat_legend(image, draw, image.height - 24, most)
    return image


def _flat_legend(image: Image, draw: Any, top: int, most: float) -> None:
    line = np.linspace(-most, most, 160)[None].repeat(12, axis=0)
    image.paste(pillow().fromarray(np.asarray(palette.colours(line, most).round(), np.uint8)), (110, top))
    draw.rectangle((110, top, 269, top + 11), outline=PALE)
    draw.text((102, top + 6), f"against  -{most:.2g}", INK, _font(12), anchor="rm")
    draw.text((278, top + 6), f"+{most:.2g}  for", INK, _font(12), anchor="lm")
