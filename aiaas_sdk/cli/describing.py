"""`aiaas info` as text."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.cli.printing import table
from aiaas_sdk.records.model import ModelInfo

__all__ = ["described"]


def described(found: ModelInfo) -> str:
    """What a model says of itself, a line for each thing."""
    lines: list[tuple[str, Any]] = [
        ("name", found.name),
        ("version", found.version or "unknown"),
        ("versions", ", ".join(found.versions) or "unknown"),
        ("platform", found.platform or "unknown"),
        ("device", found.device or "unknown"),
        ("verbs", ", ".join(sorted(found.verbs))),
    ]
    for kind, specs in (("input", found.inputs), ("output", found.outputs)):
        lines += [(kind, f"{s.name} {s.datatype} {list(s.shape)}") for s in specs] or [(f"{kind}s", "any")]
    if found.labels is not None:
        lines.append(("labels", f"{len(found.labels)}: {_shortened(', '.join(found.labels))}"))
    lines += [(name, _shortened(str(value))) for name, value in found.metadata.items()]
    return table(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} ..."
