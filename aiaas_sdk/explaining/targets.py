"""Which number of an answer is explained.

A target is written as one of

    7               the number at this place of the row's answer, counted through all its axes, the last one fastest
    "virginica"     the place of a label, where the answer is one row of scores
    "prob"          an output by its name: what it predicts
    "prob[1,7,9]"   a place in an output by its name: an index for each axis behind the rows
    " Paris"        of a text that goes on: a next token as it is written, which the model's tokenizer knows
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError
from aiaas_sdk.records.explanation import explained_output, explained_outputs
from aiaas_sdk.records.model import ModelInfo, TensorSpec

__all__ = ["are_classes", "names_output", "output_of", "resolved", "settled", "unknown"]

SPELLED = re.compile(r"(?P<output>.+?)(\[(?P<places>\d{1,9}(,\s*\d{1,9})*)\])?", re.DOTALL)


# ---------------------------------------------------------------- as it is asked
def settled(target: Any, rows: int, info: ModelInfo, *, texts: bool = False) -> tuple[int | str, ...] | None:
    """For each row what is meant by a target, which is one for all rows, or one for each row.

    None stays None: what the model predicts. A label becomes its index; what names an output stays as it is written,
    and so does what may be a token where `texts` are explained.

    Raises:
        InputError: there is no such label or output, the target is none of these, or they name several outputs.
    """
    if target is None:
        return None
    if isinstance(target, str) or _is_index(target):
        return (_place(target, info, texts),) * rows
    if not isinstance(target, Sequence | np.ndarray):
        raise InputError(f"target is {kind_of(target)}", hint="Give an index, a label, or one of them a row")
    if len(target) != rows:
        raise InputError(f"there are {len(target)} targets for {rows} rows")
    found = tuple(_place(one, info, texts) for one in target)
    outputs = {_named(one, info).name for one in found}
    if len(outputs) > 1:
        raise InputError(f"the targets are in several outputs, {', '.join(sorted(outputs))}", hint="Ask for each alone")
    return found


def output_of(targets: Sequence[int | str] | None, info: ModelInfo) -> TensorSpec:
    """The output that settled targets are in."""
    return _named(targets[0] if targets else 0, info)


def are_classes(output: TensorSpec, info: ModelInfo) -> bool:
    """Whether an index in an output is that of a label: it is one row of scores, a score for each."""
    named = explained_output(info)
    return named is not None and named.name == output.name and len(output.shape) <= 2


def names_output(target: str, info: ModelInfo) -> bool:
    """Whether a target is an output's name, or a place in one; a label or a token otherwise."""
    return any(spec.name == _parsed(target)[0] for spec in explained_outputs(info))


def unknown(target: str, info: ModelInfo) -> InputError:
    """What to say to a target that is neither a label nor names an output, nor is a token."""
    output = explained_output(info)
    assert output is not None  # or it couldn't be explained
    return _unknown(target, info, output)


def _named(target: int | str, info: ModelInfo) -> TensorSpec:
    if isinstance(target, str) and names_output(target, info):
        name = _parsed(target)[0]
        return next(spec for spec in info.outputs if spec.name == name)
    output = explained_output(info)
    assert output is not None  # or it couldn't be explained
    return output


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _place(value: Any, info: ModelInfo, texts: bool) -> int | str:
    output = explained_output(info)
    assert output is not None  # or it couldn't be explained
    if isinstance(value, str) and texts and info.labels is None and not names_output(value, info):
        return value  # a token, which whoever has the tokenizer looks for
    if isinstance(value, str):
        return _spelled(value, info, output)
    if not _is_index(value):
        raise InputError(f"a target is {kind_of(value)}", hint="Give an index, or a label")
    if value < 0:
        raise InputError(f"a target is {value}", hint="Give an index from 0 on")
    if len(output.shape) == 2 and 0 <= output.shape[1] <= value:
        raise beyond(int(value), output.shape[1], info.name, info.labels)
    return int(value)


def _spelled(value: str, info: ModelInfo, output: TensorSpec) -> int | str:
    if value in (info.labels or ()):
        if len(output.shape) > 2:
            free = ",".join("ijkl"[axis] for axis in range(len(output.shape) - 1))
            raise InputError(
                f"{output.name!r} of {info.name} has a place for {value[:80]!r} in more than one of its rows",
                hint=f"Say which: target='{output.name}[{free}]' with an index for each axis behind the rows",
            )
        return (info.labels or ()).index(value)
    name, places = _parsed(value)
    named = next((spec for spec in explained_outputs(info) if spec.name == name), None)
    if named is None:
        raise _unknown(value, info, output)
    for place, size in zip(places or (), named.shape[1:], strict=False):
        if len(places or ()) == len(named.shape) - 1 and 0 <= size <= place:
            raise InputError(f"{name!r} of {info.name} has no place {value[:80]!r}", hint=f"It is {list(named.shape)}")
    return value


def _unknown(value: str, info: ModelInfo, output: TensorSpec) -> InputError:
    named = ", ".join(spec.name for spec in explained_outputs(info))
    spelled = f"an output ({named}), or a place in one: '{output.name}[0]'"
    if info.labels is None:
        return InputError(f"target is {value[:80]!r}, and {info.name} has no labels", hint=f"Give an index, {spelled}")
    hint = f"It has {_listed(info.labels)}. A target may also be {spelled}"
    return InputError(f"{info.name} has no label {value[:80]!r}", hint=hint)


def _parsed(value: str) -> tuple[str, tuple[int, ...] | None]:
    """The output's name, and the place in it."""
    found = SPELLED.fullmatch(value)
    if found is None or found["places"] is None:
        return value, None
    return found["output"], tuple(int(place) for place in found["places"].split(","))


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    return ", ".join(labels[:20]) + more


def beyond(target: int, width: int, where: str, labels: Sequence[str] | None) -> InputError:
    named = f"{_listed(labels)}, or " if labels else ""
    return InputError(f"{where} has no target {target}", hint=f"Its targets are {named}0 to {width - 1}")


# ---------------------------------------------------------------- once there is an answer
def resolved(
    targets: Sequence[int | str] | None, scores: npt.NDArray[Any], output: TensorSpec, info: ModelInfo
) -> tuple[int, ...] | None:
    """For each row the place of its target among all the numbers of its answer.

    None where a row has one number, which then is what is explained.

    Args:
        scores: what `output` says, (rows, ...).

    Raises:
        InputError: the answer has no place for a target, or no one number is what the model predicts.
    """
    shape = scores.shape[1:]
    width = math.prod(shape)
    if width == 0:
        raise InputError(f"{info.name} gives rows of no scores; there is nothing to explain")
    asked: Sequence[int | str | None] = targets if targets is not None else [None] * len(scores)
    places = [_counted(target, shape, output, info) for target in asked]
    if width == 1:
        return None
    if None not in places:
        return tuple(place for place in places if place is not None)
    if len(shape) > 1:
        raise InputError(
            f"{output.name!r} of {info.name} gives {list(shape)} numbers a row, of which none is what it predicts",
            hint=f"Give target='{output.name}[{','.join(str(size - 1) for size in shape)}]', say, to ask for the last",
        )
    if np.isnan(scores).any():
        raise InputError(f"{info.name} gives NaN, so it predicts no class", hint="Give target=")
    likeliest = scores.argmax(axis=1).tolist()
    return tuple(best if place is None else place for place, best in zip(places, likeliest, strict=True))


def _counted(target: int | str | None, shape: Sequence[int], output: TensorSpec, info: ModelInfo) -> int | None:
    width = math.prod(shape)
    if isinstance(target, str):
        places = _parsed(target)[1]
        if places is None:
            return None
        if len(places) != len(shape) or any(place >= size for place, size in zip(places, shape, strict=True)):
            raise InputError(
                f"{info.name} has no target {target[:80]!r}", hint=f"{output.name!r} has {list(shape)} numbers a row"
            )
        return int(np.ravel_multi_index(places, tuple(shape)))
    if target is not None and target >= width:
        raise beyond(target, width, info.name, info.labels if are_classes(output, info) else None)
    return target
