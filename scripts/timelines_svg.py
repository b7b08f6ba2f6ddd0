"""A timeline as SVG: lanes with bars over an axis of seconds.

Colours are of a middle tone and the background is clear, so that it reads on a light page and on a dark one. What a
colour says a word says too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

__all__ = ["Bar", "Lane", "Picture", "Scene"]

COLOURS = {
    "call": "#4a82c4",
    "ok": "#2f9461",
    "failed": "#cf5151",
    "refused": "#b9770e",
    "left": "#8c6bb1",
    "rest": "#b9770e",
}
INK = "#777c85"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
WIDTH, LEFT, RIGHT = 760, 118, 14
ROW, BAR, SIZE = 26, 16, 11
LETTER, BOLD = 6.1, 7.0  # pixels of a letter, in the widest of the usual fonts
LEAST = 3  # pixels of a bar that is hardly any


@dataclass(frozen=True, slots=True)
class Bar:
    """From `begin` to `end` (s). Kinds: those of COLOURS, "gap" for a pause (a dashed line)."""

    begin: float
    end: float
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Scene:
    """One axis. `marks` are moments with a colour and a word; `legend` says what colours without labels mean."""

    title: str
    lanes: Sequence[Lane]
    marks: Sequence[tuple[float, str, str]] = ()
    legend: Sequence[tuple[str, str]] = ()
    level: tuple[str, Sequence[tuple[float, float]]] | None = None
    """A line below the lanes: its name, and (moment, value)."""


@dataclass(slots=True)
class Picture:
    """Scenes below one another, on one scale; `text()` is the file."""

    scenes: Sequence[Scene]
    _lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        top, last = 4.0, 1.02 * max(map(_end, self.scenes))
        for scene in self.scenes:
            top = _Drawn(scene, top, last, self._lines).draw() + 16
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" width="{WIDTH}" '
            f'height="{top:.0f}" role="img" font-family="{FONT}" font-size="{SIZE}" fill="{INK}">'
        )
        titles = "; ".join(scene.title for scene in self.scenes)
        return "\n".join([head, f"<title>{escape(titles)}</title>", *self._lines, "</svg>", ""])


class _Drawn:
    """One scene, drawn from `top` on."""

    def __init__(self, scene: Scene, top: float, last: float, lines: list[str]) -> None:
        self.scene, self.top, self.last, self.lines = scene, top, last, lines

    def x(self, moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * moment / self.last

    def draw(self) -> float:
        """Where it ends."""
        self._text(0, self.top + 12, self.scene.title, weight=600)
        first = self.top + 20 + (14 if self.scene.marks else 0)
        foot = first + ROW * len(self.scene.lanes)
        foot = self._level(foot) if self.scene.level else foot
        self._axis(first, foot)
        for place, lane in enumerate(self.scene.lanes):
            self._lane(lane, first + ROW * place)
        for moment, kind, word in self.scene.marks:
            self._mark(moment, COLOURS[kind], word, first, foot)
        return self._legend(foot + 18)

    # ------------------------------------------------------------ parts
    def _axis(self, first: float, foot: float) -> None:
        self._line(LEFT, foot, WIDTH - RIGHT, foot, opacity=0.8)
        step = _step(self.last)
        for number in range(int(self.last / step) + 1):
            x, text = self.x(number * step), f"{number * step:g} s"
            self._line(x, first, x, foot + 4, opacity=0.22)
            self._text(x, foot + 16, text, anchor="middle" if x + 10 < WIDTH else "end")

    def _lane(self, lane: Lane, top: float) -> None:
        self._text(LEFT - 10, top + ROW / 2 + 4, lane.name, anchor="end")
        bars = sorted(lane.bars, key=lambda bar: bar.begin)
        for bar, after in zip(bars, [*bars[1:], None], strict=True):
            edge = self.x(after.begin) - 3 if after is not None else WIDTH - 2
            if bar.kind == "gap":
                self._gap(bar, top + ROW / 2)
            else:
                self._bar(bar, top + (ROW - BAR) / 2, edge)

    def _bar(self, bar: Bar, top: float, edge: float) -> None:
        x, width = self.x(bar.begin), max(LEAST, self.x(bar.end) - self.x(bar.begin))
        colour, round_ = COLOURS[bar.kind], min(2.5, width / 4)
        place = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{BAR}" rx="{round_:.1f}"'
        self.lines.append(f'<rect {place} fill="{colour}"/>')
        wide = BOLD * len(bar.label) + 8
        if not bar.label:
            return
        if wide <= width:
            self._text(x + 5, top + 12, bar.label, fill="#ffffff", weight=600)
        elif x + width + 5 + wide <= edge + 8:
            self._text(x + width + 5, top + 12, bar.label, fill=colour, weight=600)
        else:
            self._text(x - 5, top + 12, bar.label, fill=colour, weight=600, anchor="end")

    def _gap(self, bar: Bar, y: float) -> None:
        begin, end = self.x(bar.begin), self.x(bar.end)
        wide = LETTER * len(bar.label) + 8
        self._line(begin, y - 4, begin, y + 4)
        self._line(end - 1, y - 4, end - 1, y + 4)
        if wide <= end - begin - 12:
            middle = (begin + end) / 2
            self._line(begin, y, middle - wide / 2, y, dashed=True)
            self._line(middle + wide / 2, y, end, y, dashed=True)
            self._text(middle, y + 4, bar.label, anchor="middle")
        else:
            self._line(begin, y, end, y, dashed=True)
            self._text(begin - 5, y + 4, bar.label, anchor="end")

    def _mark(self, moment: float, colour: str, word: str, first: float, foot: float) -> None:
        x = self.x(moment)
        self._line(x, first - 4, x, foot, dashed=True, colour=colour)
        anchor = "middle" if x + BOLD * len(word) / 2 < WIDTH else "end"
        self._text(min(x, WIDTH - 2), first - 7, word, fill=colour, weight=600, anchor=anchor)

    def _level(self, top: float) -> float:
        assert self.scene.level is not None
        name, points = self.scene.level
        height, most = 46.0, max(value for _, value in points)
        foot = top + 8 + height
        self._text(LEFT - 10, foot - height + 8, f"{name} {most:.0f}", anchor="end")
        self._text(LEFT - 10, foot, "0", anchor="end")
        path, before = [], most
        for moment, value in points:
            path += [(self.x(moment), before), (self.x(moment), value)]
            before = value
        text = " ".join(f"{x:.1f},{foot - height * value / most:.1f}" for x, value in path)
        colour = COLOURS["call"]
        self.lines.append(f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        return foot + 6

    def _legend(self, y: float) -> float:
        if not self.scene.legend:
            return y
        x: float = LEFT
        for kind, word in self.scene.legend:
            wide = 22 + LETTER * len(word) + 14
            if x + wide > WIDTH and x > LEFT:
                x, y = LEFT, y + 18
            colour = COLOURS[kind]
            self.lines.append(f'<rect x="{x:.1f}" y="{y + 4:.1f}" width="10" height="10" rx="2" fill="{colour}"/>')
            self._text(x + 15, y + 13, word)
            x += wide
        return y + 18

    # ------------------------------------------------------------ elements
    def _text(self, x: float, y: float, text: str, *, anchor: str = "start", fill: str = "", weight: int = 400) -> None:
        more = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' fill="{fill}"' if fill else "")
        more += f' font-weight="{weight}"' if weight != 400 else ""
        self.lines.append(f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>')

    def _line(
        self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False, colour: str = INK, opacity: float = 1
    ) -> None:
        more = ' stroke-dasharray="3 3"' if dashed else ""
        more += f' stroke-opacity="{opacity:g}"' if opacity != 1 else ""
        self.lines.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>')


def _end(scene: Scene) -> float:
    return max(bar.end for lane in scene.lanes for bar in lane.bars)


def _step(seconds: float) -> float:
    """Between two ticks: 1, 2 or 5 times a power of ten, about ten of them."""
    rough = seconds / 10
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
