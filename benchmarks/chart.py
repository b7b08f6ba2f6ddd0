"""Line charts as SVG, in plain text: panels one below the other over the same x axis, with one legend."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT, PANEL, GAP, TOP, BOTTOM = 860, 64, 20, 190, 58, 62, 46
INK, PALE, GRID = "#222222", "#f3ede1", "#dddddd"


@dataclass(frozen=True)
class Line:
    """Points of equal distance, the first at `first`. `dash` as SVG has it."""

    name: str
    colour: str
    values: Sequence[float]
    first: float = 0.0
    step: float = 1.0
    dash: str = ""
    width: float = 2.0


@dataclass(frozen=True)
class Panel:
    """One diagram; later lines lie over earlier ones."""

    title: str
    lines: Sequence[Line]


def drawn(panels: Sequence[Panel], x_title: str, span: float, shade: tuple[float, float, str] | None = None) -> str:
    """The SVG.

    Args:
        span: the x axis goes from 0 to it.
        shade: begin and end on the x axis of what is shaded, and its words.
    """
    height = TOP + len(panels) * (PANEL + GAP) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend([line for panel in panels for line in panel.lines]),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (PANEL + GAP), span, shade)
    parts += [_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, height - 8, x_title, "middle"), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, top: float, span: float, shade: tuple[float, float, str] | None) -> list[str]:
    most = max(max(line.values) for line in panel.lines)
    tick = _round(most / 4)
    most = tick * math.ceil(most / tick)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / span

    def y(value: float) -> float:
        return top + PANEL * (1 - value / most)

    parts = [_text(LEFT, top - 8, panel.title, "start", bold=True)]
    if shade is not None:
        begin, end, words = shade
        parts.append(
            f'<rect x="{x(begin):.1f}" y="{top}" width="{x(end) - x(begin):.1f}" height="{PANEL}" fill="{PALE}"/>'
        )
        parts.append(_text(x(end), top - 8, words, "end"))
    for n in range(round(most / tick) + 1):
        parts.append(_stroke(LEFT, y(n * tick), WIDTH - RIGHT, y(n * tick), GRID))
        parts.append(_text(LEFT - 8, y(n * tick) + 4, f"{n * tick:g}", "end"))
    step = _round(span / 8)
    for n in range(int(span / step) + 1):
        parts.append(_stroke(x(n * step), top + PANEL, x(n * step), top + PANEL + 5, INK))
        parts.append(_text(x(n * step), top + PANEL + 19, f"{n * step:g}", "middle"))
    for line in panel.lines:
        points = " ".join(f"{x(line.first + n * line.step):.1f},{y(value):.1f}" for n, value in enumerate(line.values))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{line.width}" '
            f'stroke-linejoin="round"{_dash(line.dash)}/>'
        )
    parts.append(_stroke(LEFT, top + PANEL, WIDTH - RIGHT, top + PANEL, INK))
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    """Each name once."""
    parts, left = list[str](), float(LEFT)
    for line in {line.name: line for line in lines}.values():
        parts.append(
            f'<line x1="{left}" y1="20" x2="{left + 26}" y2="20" stroke="{line.colour}" '
            f'stroke-width="{line.width + 0.5}"{_dash(line.dash)}/>'
        )
        parts.append(_text(left + 32, 24, line.name, "start"))
        left += 52 + 6.9 * len(line.name)
    return parts


def _round(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _text(x: float, y: float, words: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{html.escape(words)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{_dash(dash)}/>'


def _dash(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""
