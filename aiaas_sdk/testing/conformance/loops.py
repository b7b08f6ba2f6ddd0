"""Event loops come and go; a model isn't bound to one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from aiaas_sdk.testing.conformance.bench import LIMIT, Bench, shown
from aiaas_sdk.testing.conformance.checks import agree, check


def _in_a_loop(work: Any) -> Any:
    """As `asyncio.run`: a loop of its own, closed afterwards."""
    with asyncio.Runner() as runner:
        return runner.run(asyncio.wait_for(work, LIMIT))


@check("predict")
def a_model_serves_one_loop_after_another(bench: Bench) -> None:
    """An awaited model that was used in a loop serves in the next, after the first was closed."""
    inputs, model = bench.question(), bench.fresh_awaited()
    right = bench.ask(inputs)
    for number in (1, 2, 3):
        bench.same(_in_a_loop(model.predict(inputs)), right, f"in loop {number}")
    _in_a_loop(model.aclose())


@check("predict")
def a_model_serves_loops_of_several_threads(bench: Bench) -> None:
    """One awaited model serves loops in two threads at once."""
    model, came = bench.fresh_awaited(), []
    questions = [bench.question(20, also=number) for number in range(2)]

    async def ask(question: Any) -> list[Any]:
        return [await model.predict(question) for _ in range(5)]

    def run(number: int) -> None:
        try:
            came.append((number, _in_a_loop(ask(questions[number]))))
        except BaseException as error:
            came.append((number, error))

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    agree(len(came) == 2, f"a loop wasn't done in {LIMIT:.0f} s")
    for number, answers in came:
        agree(isinstance(answers, list), f"in loop {number}: {shown(answers)}" if answers else "")
        for answer in answers:
            bench.same(answer, bench.ask(questions[number]), f"in the loop of thread {number}")
    _in_a_loop(model.aclose())


@check("predict")
def a_plain_model_works_within_a_loop(bench: Bench) -> None:
    """The plain face may be called in a thread that runs a loop."""
    inputs = bench.question()
    right = bench.ask(inputs)

    async def asked() -> Any:
        return bench.ask(inputs)

    bench.same(_in_a_loop(asked()), right, "within a loop")


@check("predict")
def both_faces_work_side_by_side(bench: Bench) -> None:
    """A plain and an awaited model of one address answer in turns."""
    inputs = bench.question(25)
    for number in range(3):
        bench.same(bench.wait(bench.awaited.predict(inputs)), bench.ask(inputs), f"in turn {number}")
