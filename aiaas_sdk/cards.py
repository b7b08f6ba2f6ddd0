"""A model's card: what is known of it as Markdown, in the manner of Mitchell et al. 2019, "Model Cards for Model
Reporting". What nobody noted is "not known".

All text is a stranger's, and is escaped: it shows as it is, and makes no link, image or markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiaas_sdk.records.model import ModelInfo, TensorSpec

__all__ = ["card"]

UNKNOWN = "not known"
SHOWN = 100
"""No more labels stand in a card."""
LONG = 500
"""Characters of one value."""
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~&$@]|(?i:(?<=http)|(?<=https)|(?<=ftp)):|(?i:(?<=www))\.")
"""What begins markup, or is where some readers see a link in plain text."""
_OWN = {
    "architecture", "created", "digest", "dtype", "labels", "lineage", "parameters", "precision", "signed_by", "size",
}  # fmt: skip
"""Facts that have a place of their own in the card."""
Row = tuple[str, Any]


def card(info: ModelInfo) -> str:
    """The card of a model, from what it says of itself, here or behind an endpoint."""
    lineage = _mapping(info.metadata.get("lineage"))
    parts = [
        f"# {_text(info.name)}",
        _facts(_identity(info)),
        "## What it takes and gives",
        _signature(info),
        _labels(info.labels),
        "## Where it comes from",
        _facts(_origin(info, lineage)),
        "## Training data",
        _facts(_data(_mapping(lineage.get("data")))),
        "## Training",
        _training(lineage),
    ]
    more = [(name, value) for name, value in info.metadata.items() if name not in _OWN]
    if more:
        parts += ["## More", _facts(more)]
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- the parts
def _identity(info: ModelInfo) -> list[Row]:
    facts = info.metadata
    return [
        ("version", info.version),
        ("versions that there are", ", ".join(info.versions)),
        ("verbs", ", ".join(sorted(info.verbs))),
        ("architecture", facts.get("architecture")),
        ("parameters", _grouped(facts.get("parameters"))),
        ("size", _size(facts.get("size"))),
        ("dtype", facts.get("dtype")),
        ("platform", info.platform),
        ("digest", facts.get("digest")),
        ("signed by", facts.get("signed_by")),
        ("created", facts.get("created")),
    ]


def _signature(info: ModelInfo) -> str:
    rows = [_tensor("input", spec) for spec in info.inputs] or [("input", "any", "", "")]
    rows += [_tensor("output", spec) for spec in info.outputs] or [("output", "any", "", "")]
    return _table(("", "name", "datatype", "shape (-1: any size)"), rows)


def _tensor(kind: str, spec: TensorSpec) -> tuple[Any, ...]:
    return kind, spec.name, spec.datatype, list(spec.shape)


def _labels(labels: Sequence[str] | None) -> str:
    if labels is None:
        return f"Labels: {UNKNOWN}."
    rest = f", and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"Labels ({len(labels)}): {', '.join(_text(label) for label in labels[:SHOWN])}{rest}."


def _origin(info: ModelInfo, lineage: Mapping[str, Any]) -> list[Row]:
    parent = _mapping(lineage.get("parent"))
    versions = _mapping(lineage.get("versions")) or {k: lineage[k] for k in ("torch",) if k in lineage}
    rows: list[Row] = [
        ("trained from version", parent.get("version")),
        ("its digest", parent.get("digest")),
        ("made with", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    known = {"parent", "data", "settings", "training", "versions", "torch"}
    return rows + [(name, value) for name, value in lineage.items() if name not in known]


def _data(data: Mapping[str, Any]) -> list[Row]:
    held = _mapping(data.get("validation"))
    rows: list[Row] = [("rows", _grouped(data.get("rows"))), ("digest of the rows", data.get("digest"))]
    if held:
        rows += [("rows of validation", _grouped(held.get("rows"))), ("digest of validation", held.get("digest"))]
    return rows


def _training(lineage: Mapping[str, Any]) -> str:
    settings, ended = _mapping(lineage.get("settings")), _mapping(lineage.get("training"))
    if not settings and not ended:
        return f"Settings and metrics are {UNKNOWN}."
    metrics = _mapping(ended.get("metrics"))
    results: list[Row] = [(name, value) for name, value in ended.items() if name != "metrics"]
    parts = [
        _table(("metric", "after the last epoch"), _spelled(metrics.items())) if metrics else f"Metrics are {UNKNOWN}.",
        _table(("run", ""), _spelled(results)) if results else "",
        _table(("setting", ""), _spelled(settings.items())) if settings else f"Settings are {UNKNOWN}.",
    ]
    return "\n\n".join(part for part in parts if part)


# ---------------------------------------------------------------- values
def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _grouped(value: Any) -> Any:
    return f"{value:,}" if type(value) is int else value


def _size(value: Any) -> Any:
    """Bytes, and the same as people read them."""
    if type(value) is not int:
        return value
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if value >= u), (1, ""))
    return f"{value:,} bytes" + (f" ({value / unit:.3g} {name})" if name else "")


def _spelled(rows: Iterable[Row]) -> list[Row]:
    """Mappings inside become rows of their own."""
    found: list[Row] = []
    for name, value in rows:
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", each) for inner, each in value.items()]
        else:
            found.append((name, "not given" if value is None else value))
    return found


# ---------------------------------------------------------------- Markdown
def _facts(rows: Iterable[Row]) -> str:
    return _table(("", ""), [(name, UNKNOWN if value in (None, "") else value) for name, value in rows])


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    """A value on one line, of which a Markdown reader sees each character as it is."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > LONG:
        text = f"{text[:LONG]} ..."
    plain = "".join(c if c.isprintable() else " " for c in text).strip()
    return _MARKUP.sub(r"\\\g<0>", plain)
