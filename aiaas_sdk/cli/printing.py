"""What goes to stdout: aligned text for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["clean", "document", "plain", "table"]


def clean(text: str) -> str:
    """Text on one line and without control characters: what a peer says can't steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def table(rows: Sequence[Sequence[Any]], indent: str = "") -> str:
    """Columns, aligned; the last one isn't padded."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def plain(value: Any) -> Any:
    """Records and the like as JSON has them. A number that JSON lacks (NaN, an infinity) is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def document(value: Any) -> str:
    """One JSON document."""
    return json.dumps(plain(value), allow_nan=False)
