"""Which method fits a model and its inputs.

What "auto" takes, the first that fits:

    texts that go on    occlusion, attention_rollout
    other texts, token ids    integrated_gradients, attention_rollout
    a table of at most 64 columns    shap
    anything else           integrated_gradients, occlusion
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.explanation import AUTO, METHODS, Question
from aiaas_sdk.records.model import ModelInfo

__all__ = ["check", "chosen"]

NARROW = 64
"""Columns up to which a table is explained by SHAP values unless another method is asked for."""
WIDE = 1024
"""Columns of the widest table that has SHAP values: what they take grows with the square of that."""

Lacks = Callable[[str], str | None]
"""What is missing for a method, in words; None where nothing is."""


def check(method: str) -> None:
    """InputError where there is no such method; it lists those that there are."""
    if method == AUTO or method in METHODS:
        return
    near = get_close_matches(str(method), METHODS, 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(f"explain has no method {str(method)[:80]!r}", hint=f"{meant}There are auto, {', '.join(METHODS)}")


def chosen(question: Question, info: ModelInfo, lacks: Lacks) -> str:
    """The method that answers a question: the one that it names, or the one that fits.

    Raises:
        InputError: it doesn't fit; it says why, and which methods would.
    """

    def missing(method: str) -> str | None:
        return _missing(method, question) or lacks(method)

    fitting = [method for method in METHODS if missing(method) is None]
    if question.method != AUTO:
        if (why := missing(question.method)) is None:
            return question.method
        raise InputError(f"{question.method} {why}", hint=_instead(info, fitting))
    liked = _liked(question, goes_on="generate" in info.verbs)
    found = next((method for method in liked if method in fitting), None)
    if found is None:
        whys = "; ".join(f"{method} {missing(method)}" for method in liked)
        what = "this input" if question.texts is None else "texts"
        raise InputError(f"{info.name} can't be explained with {what}: {whys}", hint=_instead(info, fitting))
    return found


def _instead(info: ModelInfo, fitting: Sequence[str]) -> str:
    return f"{info.name} can be explained by {', '.join(fitting)}" if fitting else "No method fits"


def _liked(question: Question, *, goes_on: bool) -> tuple[str, ...]:
    if question.texts is not None:  # a deep decoder's gradients change too fast on the way from a baseline
        return ("occlusion" if goes_on else "integrated_gradients", "attention_rollout")
    if _is_table(question) and sum(_columns(question)) <= NARROW and not _is_ids(question):
        return ("shap",)
    return ("integrated_gradients", "attention_rollout" if _is_ids(question) else "occlusion", "occlusion")


def _missing(method: str, question: Question) -> str | None:
    if question.texts is not None and method == "shap":
        return "is for arrays"
    if method == "shap" and not _is_table(question):
        return "is for tables, whose inputs are (rows,) or (rows, features)"
    if method == "shap" and (columns := sum(_columns(question))) > WIDE:
        return f"is for tables of up to {WIDE} columns; this one has {columns}"
    return None


def _is_table(question: Question) -> bool:
    return bool(question.inputs) and all(
        len(tensor.shape) in (1, 2) and question.axis(name) == 0 for name, tensor in question.inputs.items()
    )


def _columns(question: Question) -> list[int]:
    return [tensor.shape[1] if len(tensor.shape) == 2 else 1 for tensor in question.inputs.values()]


def _is_ids(question: Question) -> bool:
    """Whole numbers of several columns, as a tokenizer gives them."""
    tensors = question.inputs.values()
    return bool(tensors) and all(
        tensor.datatype.startswith(("INT32", "INT64")) and len(tensor.shape) == 2 and tensor.shape[1] > 1
        for tensor in tensors
    )
