"""The history of a run as curves, drawn with pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiaas_sdk.errors import BackendNotInstalledError, ConfigError

__all__ = ["plot"]

WIDTH, PANEL = 960, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 150, 34, 44
SCALE = 2
"""It is drawn so many times as large, and made smaller at the end: lines come out smooth."""
INK, PALE, PAPER = (38, 38, 38), (224, 224, 224), (255, 255, 255)
LEARNED, CHECKED = (31, 119, 180), (214, 98, 20)
BEFORE = "validation_"


def plot(history: Mapping[str, Sequence[float]], path: Path) -> Path:
    """One panel for each name, over the epochs; values of the validation stand with those that they belong to.

    Args:
        history: one value an epoch, by name.
        path: of a .png file.

    Raises:
        ConfigError: the path is of another kind, or can't be written. BackendNotInstalledError: pillow isn't there.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path} isn't a .png file", hint="Give a path that ends in .png")
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError:
        raise BackendNotInstalledError(
            "drawing needs the package pillow", hint='Install it: pip install "aiaas-sdk[plots]"'
        ) from None
    panels = [name for name in history if not name.startswith(BEFORE)]
    panels += [name for name in history if name.startswith(BEFORE) and name.removeprefix(BEFORE) not in history]
    image = Image.new("RGB", (WIDTH * SCALE, PANEL * SCALE * len(panels)), PAPER)
    draw = ImageDraw.Draw(image)
    for place, name in enumerate(panels):
        lines = {label: history[key] for label, key in ((name, name), (BEFORE + name, BEFORE + name)) if key in history}
        _Panel(draw, place * PANEL, name, lines).draw()
    try:
        image.resize((WIDTH, PANEL * len(panels)), Image.Resampling.LANCZOS).save(path, "PNG")
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror or error}") from None
    return path


class _Panel:
    """Axes and curves of one name."""

    def __init__(self, draw: Any, top: int, title: str, lines: Mapping[str, Sequence[float]]) -> None:
        from PIL import ImageFont

        self._draw, self._title, self._lines = draw, title, lines
        self._font = ImageFont.load_default(size=12 * SCALE)
        self._box = (LEFT, top + TOP, WIDTH - RIGHT, top + PANEL - BOTTOM)
        values = [value for line in lines.values() for value in line if math.isfinite(value)]
        self._ticks = ticks(min(values, default=0.0), max(values, default=1.0))
        self._count = max(len(line) for line in lines.values())

    def draw(self) -> None:
        left, top, right, bottom = self._box
        self._text((left + right) / 2, top - 18, self._title, "mm")
        for value in self._ticks:
            y = self._y(value)
            self._line([(left, y), (right, y)], PALE, 1)
            self._text(left - 8, y, _number(value), "rm")
        for epoch in _epochs(self._count):
            x = self._x(epoch)
            self._line([(x, bottom), (x, bottom + 4)], INK, 1)
            self._text(x, bottom + 8, str(epoch), "mt")
        self._line([(left, top), (left, bottom), (right, bottom)], INK, 1)
        self._text((left + right) / 2, bottom + 24, "epoch", "mt")
        for label, line in self._lines.items():
            self._curve(line, CHECKED if label.startswith(BEFORE) else LEARNED)
        self._legend()

    def _curve(self, line: Sequence[float], ink: tuple[int, int, int]) -> None:
        points = [(self._x(epoch), self._y(v)) for epoch, v in enumerate(line, 1) if math.isfinite(v)]
        if len(points) > 1:
            self._line(points, ink, 2)
        for x, y in points if self._count <= 60 else ():
            self._draw.ellipse([SCALE * (x - 3), SCALE * (y - 3), SCALE * (x + 3), SCALE * (y + 3)], fill=ink)

    def _legend(self) -> None:
        x, y = self._box[2] + 16, self._box[1] + 8
        for label, line in self._lines.items():
            checked = label.startswith(BEFORE)
            self._line([(x, y), (x + 18, y)], CHECKED if checked else LEARNED, 2)
            self._text(x + 24, y, "validation" if checked else "training", "lm")
            last = next((value for value in reversed(line) if math.isfinite(value)), math.nan)
            self._text(x + 24, y + 16, f"{last:.4g}", "lm")
            y += 44

    # ------------------------------------------------------------ places
    def _x(self, epoch: float) -> float:
        left, _, right, _ = self._box
        return left + 12 + (epoch - 1) / max(1, self._count - 1) * (right - left - 24)

    def _y(self, value: float) -> float:
        _, top, _, bottom = self._box
        low, high = self._ticks[0], self._ticks[-1]
        return bottom - (value - low) / (high - low) * (bottom - top)

    def _line(self, points: Sequence[tuple[float, float]], ink: tuple[int, int, int], width: int) -> None:
        self._draw.line([(SCALE * x, SCALE * y) for x, y in points], fill=ink, width=width * SCALE, joint="curve")

    def _text(self, x: float, y: float, text: str, anchor: str) -> None:
        self._draw.text((SCALE * x, SCALE * y), text, fill=INK, font=self._font, anchor=anchor)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at most `low` to at least `high`; some 5 of them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def _epochs(count: int) -> list[int]:
    step = max(1, round(ticks(0, count)[1])) if count > 10 else 1
    return [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))
