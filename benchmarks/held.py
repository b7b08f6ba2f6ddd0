"""What a process held before a soak and after each part of it: as lines, and as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chart import Line, Panel, drawn

Held = Mapping[str, float]
"""files, threads, tasks, memory (MiB), blocks (of Python's memory)."""


def table(names: Sequence[str], held: Sequence[Held]) -> list[str]:
    lines = [f"{'':>18}{'files':>8}{'threads':>9}{'tasks':>7}{'MiB':>8}{'blocks':>9}"]
    for name, row in zip(names, held, strict=True):
        counts = f"{row['files']:>8}{row['threads']:>9}{row['tasks']:>7}"
        lines.append(f"{name:>18}{counts}{row['memory']:>8.1f}{row['blocks']:>9}")
    return lines


def curves(held: Sequence[Held], whose: str, x_title: str, span: float) -> str:
    """The SVG; the x axis goes from 0 to `span`."""
    step = span / (len(held) - 1)

    def line(name: str, colour: str, what: str) -> Line:
        return Line(name, colour, [row[what] for row in held], step=step)

    panels = [
        Panel(f"Memory of the {whose}, MiB", [line("memory", "#0072b2", "memory")]),
        Panel("Open files and tasks", [line("open files", "#d55e00", "files"), line("tasks", "#009e73", "tasks")]),
    ]
    return drawn(panels, x_title, span)
