"""One check: a promise, a function that holds a backend to it, and what the backend must have to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from aiaas_sdk.testing.conformance.bench import Bench

__all__ = ["CHECKS", "Check", "LacksError", "UnmetError", "agree", "check", "family", "lacks"]

Run: TypeAlias = "Callable[[Bench], None]"


class UnmetError(AssertionError):
    """The promise isn't kept; the text says how."""


class LacksError(Exception):
    """The backend lacks what the check is about, and isn't asked; the text says what."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: of the check, and of its test after "test_".
        group: the module that it stands in.
        promise: what it holds the backend to, in a sentence.
        verbs: those that a model must have to be asked.
        run: raises UnmetError, or LacksError.
    """

    name: str
    group: str
    promise: str
    verbs: tuple[str, ...]
    run: Run


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run."""


def check(*verbs: str) -> Callable[[Run], Run]:
    """Make a check of a function. Its name is the check's, and the first line of its docstring the promise."""

    def made(run: Run) -> Run:
        promise = (run.__doc__ or "").strip().partition("\n")[0]
        _add(Check(run.__name__, run.__module__.rpartition(".")[2], promise, verbs, run))
        return run

    return made


def family(
    name: str, members: Iterable[Any], *verbs: str
) -> Callable[[Callable[[Bench, Any], None]], Callable[[Bench, Any], None]]:
    """Make a check of each member: `name` and the promise hold {}, which stands for the member."""

    def made(run: Callable[[Bench, Any], None]) -> Callable[[Bench, Any], None]:
        promise = (run.__doc__ or "").strip().partition("\n")[0]
        group = run.__module__.rpartition(".")[2]
        for member in members:
            _add(Check(name.format(member), group, promise.format(member), verbs, _bound(run, member)))
        return run

    return made


def _bound(run: Callable[[Bench, Any], None], member: Any) -> Run:
    return lambda bench: run(bench, member)


def _add(made: Check) -> None:
    assert made.name not in CHECKS, made.name
    CHECKS[made.name] = made


def agree(kept: bool, told: str) -> None:
    """Raise UnmetError with `told` unless the promise is kept."""
    if not kept:
        raise UnmetError(told)


def lacks(missing: bool, told: str) -> None:
    """Raise LacksError with `told` where something is missing."""
    if missing:
        raise LacksError(told)
