"""The outputs of `predict`: those that were asked for, as they were announced, in memory of their own."""

from __future__ import annotations

import numpy as np

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks


@check("predict")
def all_outputs_come(bench: Bench) -> None:
    """Without `outputs=`, all that are announced come."""
    lacks(not bench.info.outputs, "the model announces no outputs")
    missing = {spec.name for spec in bench.info.outputs} - set(bench.ask(bench.question(14)))
    agree(not missing, f"announced and not given: {', '.join(sorted(missing))}")


@check("predict")
def nothing_unannounced_comes(bench: Bench) -> None:
    """No output comes that isn't announced."""
    lacks(not bench.info.outputs, "the model announces no outputs")
    more = set(bench.ask(bench.question())) - {spec.name for spec in bench.info.outputs}
    agree(not more, f"given and not announced: {', '.join(sorted(more))}")


@check("predict")
def chosen_outputs_come_alone(bench: Bench) -> None:
    """With `outputs=[name]` that one comes alone, and is the same as among all."""
    lacks(len(bench.info.outputs) < 2, "the model has fewer than two outputs")
    inputs = bench.question()
    whole = bench.ask(inputs)
    for spec in bench.info.outputs:
        came = bench.ask(inputs, outputs=[spec.name])
        agree(set(came) == {spec.name}, f"asked for {spec.name!r}, and {', '.join(sorted(came))} came")
        bench.same(came, {spec.name: whole[spec.name]}, "alone")


@check("predict")
def outputs_may_be_asked_in_any_order(bench: Bench) -> None:
    """`outputs=` in another order gives the same under the same names."""
    lacks(len(bench.info.outputs) < 2, "the model has fewer than two outputs")
    inputs, names = bench.question(), [spec.name for spec in bench.info.outputs]
    bench.same(bench.ask(inputs, outputs=names[::-1]), bench.ask(inputs, outputs=names), "in another order")


@check("predict")
def outputs_have_the_announced_datatypes(bench: Bench) -> None:
    """Each output is of the datatype that is announced."""
    came = bench.ask(bench.question()).tensors
    for spec in bench.info.outputs:
        if spec.name in came:
            found = came[spec.name].datatype
            agree(found == spec.datatype, f"{spec.name!r} is announced as {spec.datatype} and came as {found}")


@check("predict")
def inputs_are_not_written_to(bench: Bench) -> None:
    """The caller's arrays are as they were."""
    inputs = bench.question(18)
    kept = {name: array.copy() for name, array in inputs.items()}
    bench.ask(inputs)
    for name, array in inputs.items():
        agree(bool(np.array_equal(array, kept[name])), f"the caller's array {name!r} was changed")


@check("predict")
def answers_stay_as_they_are(bench: Bench) -> None:
    """A later call doesn't change an earlier one's answer."""
    first = bench.ask(bench.question(19))
    kept = {name: np.array(array) for name, array in first.items()}
    for number in range(3):
        bench.ask(bench.question(19, also=number))
    for name, array in kept.items():
        agree(bool(np.array_equal(first[name], array)), f"the next calls changed {name!r} of an earlier answer")


@check("predict")
def answers_outlive_the_model(bench: Bench) -> None:
    """An answer can be read after the model was closed."""
    model, inputs = bench.fresh(), bench.question(21)
    came = model.predict(inputs)
    model.close()
    bench.same(came, bench.ask(inputs), "after closing")
