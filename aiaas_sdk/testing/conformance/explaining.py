"""`explain`: attributions of the inputs' shapes, which add up where they say so."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.explanation import Explanation, explained_output
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks

MISSED = 0.01
"""Of the difference that attributions should add up to: what they may miss."""


def _explained(bench: Bench, inputs: Mapping[str, Any]) -> Explanation:
    bench.needs_rows()
    output = explained_output(bench.info)
    lacks(output is None or len(output.shape) > 2, "the model gives a row neither one number nor one row of scores")
    return bench.model.explain(inputs)


@check("explain")
def attributions_have_the_shapes_of_inputs(bench: Bench) -> None:
    """Each input has its attributions, and they have its shape."""
    inputs = bench.question(4)
    found = {name: tuple(array.shape) for name, array in _explained(bench, inputs).items()}
    wanted = {name: tuple(np.shape(array)) for name, array in inputs.items()}
    agree(found == wanted, f"inputs are {wanted}, and their attributions {found}")


@check("explain")
def attributions_are_floats(bench: Bench) -> None:
    """Attributions are float32 or float64, and finite."""
    for name, array in _explained(bench, bench.question(5)).items():
        agree(str(array.dtype) in ("float32", "float64"), f"the attributions to {name!r} are {array.dtype}")
        agree(bool(np.isfinite(array).all()), f"not all attributions to {name!r} are finite")


@check("explain")
def attributions_add_up(bench: Bench) -> None:
    """Where there is a completeness error, attributions add up to what the answer differs from that for zeros."""
    inputs = bench.question(6)
    found = _explained(bench, inputs)
    lacks(found.completeness_error is None, f"{found.method} doesn't promise it")
    floats = all(np.asarray(array).dtype.kind == "f" for array in inputs.values())
    lacks(found.method != "shap" and not floats, "what is no float has no baseline of zeros")
    difference = _picked(bench, inputs, found) - _picked(bench, {n: np.zeros_like(a) for n, a in inputs.items()}, found)
    sums = np.sum([np.asarray(array, np.float64).reshape(6, -1).sum(1) for array in found.values()], axis=0)
    missed = np.abs(sums - difference) - MISSED * np.maximum(np.abs(difference), 1)
    agree(bool((missed <= 0).all()), f"they add up to {sums.tolist()}; the answers differ by {difference.tolist()}")


def _picked(bench: Bench, inputs: Mapping[str, Any], found: Explanation) -> Any:
    output = explained_output(bench.info)
    assert output is not None
    scores = np.asarray(bench.ask(inputs)[output.name], np.float64)
    lacks(len(scores) != 6, "its answers have other rows than it was asked")
    return scores.reshape(6) if found.target is None else scores[np.arange(6), list(found.target)]


@check("explain")
def the_same_question_has_the_same_explanation(bench: Bench) -> None:
    """What is asked again has the same attributions, awaited, too."""
    inputs = bench.question(7)
    first = _explained(bench, inputs)
    for again in (bench.model.explain(inputs), bench.wait(bench.awaited.explain(inputs))):
        agree(again.method == first.method, f"it is explained by {first.method}, and then by {again.method}")
        for name, array in first.items():
            bench.same_array(again[name], array, f"asked again, {name}")


@check("explain")
def a_target_is_kept(bench: Bench) -> None:
    """A target that is asked for is the one that is explained, row by row."""
    bench.needs_rows()
    output = explained_output(bench.info)
    lacks(output is None or len(output.shape) != 2 or output.shape[1] < 2, "the model gives no rows of scores")
    wanted = (1, 0, *(1,) * 6)
    found = bench.model.explain(bench.question(8), target=wanted).target
    agree(found == wanted, f"targets {wanted} were asked for, and {found} explained")


@check("explain")
def explanations_can_be_pickled(bench: Bench) -> None:
    """An explanation can be sent to another process."""
    found = _explained(bench, bench.question(2))
    try:
        pickle.dumps(bench.ask(bench.question(2)))
    except Exception:
        lacks(True, "no answer of it can be pickled")
    try:
        again = pickle.loads(pickle.dumps(found))
    except Exception as error:
        agree(False, f"the explanation can't be pickled: {error}")
    else:
        same = all(np.array_equal(again[name], array, equal_nan=True) for name, array in found.items())
        agree(same and again.method == found.method, "the explanation comes out of pickle as another one")


def explain_or_refuse(bench: Bench) -> None:
    """Ask for an explanation, which a model that can explain may find impossible for its answers' shape."""
    try:
        bench.model.explain(bench.question() if bench.info.inputs or bench.subject.inputs else [[0.0]])
    except InputError:
        return
