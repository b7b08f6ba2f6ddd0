"""`aiaas explain`: what each element of the inputs did for the answer, as a picture or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiaas_sdk import pictures
from aiaas_sdk.cli import reading, writing
from aiaas_sdk.cli.printing import table
from aiaas_sdk.model import Model
from aiaas_sdk.records.explanation import Explanation
from aiaas_sdk.records.model import ModelInfo

__all__ = ["PICTURES", "check", "inputs_of", "shown", "target_of", "told", "write"]

PICTURES = (".png", ".html")
_MOST = 20  # features that are listed


def check(path: Path, model: Model[Any, Any]) -> None:
    """Before anything is asked: whether the file can be written.

    Raises:
        InputError: it is of no kind that is written, or its folder isn't there.
        BackendNotInstalledError: it is a picture that pillow draws, which isn't there.
    """
    inputs = model.info().inputs
    if path.suffix.lower() in PICTURES:
        writing.check_folder(path)
        pictures.check(path, [len(spec.shape) for spec in inputs])
    else:
        kinds = f"{', '.join(PICTURES)}, {writing.KINDS}"
        writing.check(path, [spec.name for spec in inputs], top=False, kinds=kinds)


def inputs_of(given: Sequence[str], text: bool, info: ModelInfo, name: str | None, *, resize: bool) -> Any:
    """What is explained: the arguments themselves as texts, or the files that they name."""
    return list(given) if text else reading.read(list(given), info, name, resize=resize)


def target_of(text: str | None, info: ModelInfo) -> int | str | None:
    """A label where there is one of this name, or an index; anything else names a place, which the verb checks."""
    if text is None or (info.labels is not None and text in info.labels):
        return text
    return int(text) if text.isascii() and text.isdigit() else text


def write(found: Explanation, path: Path) -> None:
    """A picture, or the attributions by input name, as `aiaas predict` writes outputs."""
    if path.suffix.lower() in PICTURES:
        found.plot(path)
    else:
        writing.write({name: np.asarray(array) for name, array in found.items()}, path)


def shown(found: Explanation) -> str:
    """Who explained what, and by which method; of a table also which features matter most."""
    rows = [("model", f"{found.model}@{found.version}" if found.version else found.model), ("method", found.method)]
    if found.target is not None:
        labels = found.labels
        names = [labels[one] if labels is not None and one < len(labels) else str(one) for one in found.target]
        names = names if found.target_tokens is None else [repr(token) for token in found.target_tokens]
        rows.append(("target", ", ".join(names[:_MOST]) + (", ..." if len(names) > _MOST else "")))
    if found.completeness_error is not None:
        rows.append(("completeness error", f"{found.completeness_error:.2g}"))
    rows += [(f"attributions to {name}", str(list(array.shape))) for name, array in found.items()]
    if found.tokens is None and len(found) and all(array.ndim <= 2 for array in found.values()):
        ranked = list(found.importance().items())[:_MOST]
        rows += [(f"  {name}", f"{value:.4g}") for name, value in ranked]
    return table(rows)


def told(found: Explanation, output: Path | None) -> dict[str, Any]:
    """The explanation and who made it as plain values; not the attributions where a file has them."""
    arrays = {name: np.asarray(array).tolist() for name, array in found.items()}
    return {
        "model": found.model,
        "version": found.version,
        "backend": found.backend,
        "method": found.method,
        "target": found.target,
        "completeness_error": found.completeness_error,
        "tokens": found.tokens,
        "target_tokens": found.target_tokens,
        "attributions": None if output is not None else arrays,
        "output": None if output is None else str(output),
    }
