"""One model for many: threads, tasks, views."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from aiaas_sdk.testing.conformance.bench import LIMIT, Bench, shown
from aiaas_sdk.testing.conformance.checks import agree, check

THREADS = 6
TASKS = 12


def _together(act: Callable[[int], Any]) -> list[Any]:
    """What `act` gives in each of the threads, which begin at once."""
    start, came = threading.Barrier(THREADS), [None] * THREADS
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(LIMIT)
            came[number] = act(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        agree(not thread.is_alive(), f"a call in a thread wasn't over in {LIMIT:.0f} s")
    agree(not failures, f"in {len(failures)} of {THREADS} threads it failed: {shown(failures[0]) if failures else ''}")
    return came


@check("predict")
def threads_get_their_own_answers(bench: Bench) -> None:
    """Calls from several threads at once are each answered with their own rows."""
    questions = [bench.question(2, also=number) for number in range(THREADS)]
    bench.model.info()
    came = _together(lambda number: [bench.ask(questions[number]) for _ in range(4)])
    for number, answers in enumerate(came):
        alone = bench.ask(questions[number])
        for answer in answers:
            bench.same(answer, alone, f"in thread {number} of {THREADS}")


@check("predict")
def threads_may_open_it_together(bench: Bench) -> None:
    """Several threads may make the first call of a model together."""
    inputs, model = bench.question(), bench.fresh()
    right = bench.ask(inputs)
    for answer in _together(lambda number: model.predict(inputs)):
        bench.same(answer, right, "opened by several threads")


@check("predict")
def tasks_get_their_own_answers(bench: Bench) -> None:
    """Calls from several tasks at once are each answered with their own rows."""
    questions = [bench.question(2, also=number) for number in range(TASKS)]

    async def asked() -> list[Any]:
        return list(await asyncio.gather(*[bench.awaited.predict(question) for question in questions]))

    for number, answer in enumerate(bench.wait(asked())):
        bench.same(answer, bench.ask(questions[number]), f"in task {number} of {TASKS}")


@check("predict")
def tasks_may_open_it_together(bench: Bench) -> None:
    """Several tasks may make the first call of a model together."""
    inputs = bench.question()

    async def asked() -> list[Any]:
        async with bench.fresh_awaited() as model:
            return list(await asyncio.gather(*[model.predict(inputs) for _ in range(TASKS)]))

    right = bench.ask(inputs)
    for answer in bench.wait(asked()):
        bench.same(answer, right, "opened by several tasks")


@check("predict")
def models_of_one_address_are_apart(bench: Bench) -> None:
    """Closing one of two models of the same address leaves the other."""
    inputs, one, other = bench.question(23), bench.fresh(), bench.fresh()
    right = one.predict(inputs)
    other.predict(inputs)
    other.close()
    bench.same(one.predict(inputs), right, "after its twin was closed")


@check("predict")
def views_outlive_their_model(bench: Bench) -> None:
    """A view made by `with_options` answers after the model that it was made from was closed."""
    inputs, model = bench.question(24), bench.fresh()
    right = model.predict(inputs)
    view = model.with_options(timeout=LIMIT)
    model.close()
    try:
        bench.same(view.predict(inputs), right, "through a view")
    finally:
        view.close()
