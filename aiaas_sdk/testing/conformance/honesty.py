"""`info().verbs` says what works: those verbs do, and all others are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.model import Model
from aiaas_sdk.testing.conformance.bench import Bench, shown
from aiaas_sdk.testing.conformance.checks import agree, family
from aiaas_sdk.testing.conformance.explaining import explain_or_refuse

VERBS = ("predict", "generate", "stream", "embed", "explain", "fit")


@family("{}_is_honest", VERBS)
def honest(bench: Bench, verb: str) -> None:
    """`{}` works where info().verbs has it, and else raises UnsupportedOperationError."""
    announced = verb in bench.info.verbs
    refusal = _refusal(lambda: _DO[verb](bench, bench.model))
    if announced:
        agree(refusal is None, f"info().verbs has {verb}, and it is refused: {refusal}")
    else:
        agree(refusal is not None, f"{verb} works, and info().verbs doesn't have it")


def _refusal(act: Callable[[], Any]) -> str | None:
    try:
        act()
    except UnsupportedOperationError as error:
        return shown(error)
    return None


def _predict(bench: Bench, model: Model[Any, Any]) -> Any:
    if "predict" in bench.info.verbs or bench.info.inputs or bench.subject.inputs:
        return model.predict(bench.question())
    return model.predict([[0.0]])


def _stream(bench: Bench, model: Model[Any, Any]) -> Any:
    with model.stream(bench.subject.prompt, **bench.sampling) as stream:
        return stream.result()


def _fit(bench: Bench, model: Model[Any, Any]) -> Any:
    """Begin to learn the model's own answers, and end that at once: nothing is saved."""
    if "fit" not in bench.info.verbs:
        return model.fit([[0.0]], [0])
    question = bench.question()
    answers = model.predict(question)
    targets = {name: answer for name, answer in answers.items() if answer.dtype.kind == "f"}
    run = model.fit(question, targets, epochs=1_000_000, loss="mse", metrics=())
    run.cancel()
    run.wait(60)
    agree(run.status == "cancelled", f"a run that was cancelled is {run.status}: {list(run.events())[-1]}")
    return run


_DO: dict[str, Callable[[Bench, Model[Any, Any]], Any]] = {
    "predict": _predict,
    "generate": lambda bench, model: model.generate(bench.subject.prompt, **bench.sampling),
    "stream": _stream,
    "embed": lambda bench, model: model.embed(list(bench.subject.texts)),
    "explain": lambda bench, model: explain_or_refuse(bench),
    "fit": _fit,
}
