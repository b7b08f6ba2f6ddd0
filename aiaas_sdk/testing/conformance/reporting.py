"""What came of the checks: counted, and the failed ones in their own words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiaas_sdk.testing.conformance.bench import Bench, shown
from aiaas_sdk.testing.conformance.catalogue import CHECKS
from aiaas_sdk.testing.conformance.checks import Check, LacksError, UnmetError
from aiaas_sdk.testing.conformance.subject import Subject

__all__ = ["Outcome", "Report", "Verdict", "outcome", "report"]

Verdict: TypeAlias = Literal["pass", "fail", "not asked"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check. `words` say how it failed, or why it wasn't asked."""

    check: str
    verdict: Verdict
    words: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all checks. `str` gives "97 of 103 pass; these 6 say:", with a line for each of the six."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> tuple[str, ...]:
        """The checks that pass, by name."""
        return self._of("pass")

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that fail, by name."""
        return self._of("fail")

    @property
    def not_asked(self) -> tuple[str, ...]:
        """The checks for which the backend lacks something, by name."""
        return self._of("not asked")

    def _of(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(outcome.check for outcome in self.outcomes if outcome.verdict == verdict)

    def __str__(self) -> str:
        return "\n".join([self.told(), *_reasons(self.outcomes)])

    def told(self) -> str:
        """The same without the checks that weren't asked."""
        asked, failed = len(self.outcomes) - len(self.not_asked), self.failed
        these = "this 1 says" if len(failed) == 1 else f"these {len(failed)} say"
        head = f"{len(self.passed)} of {asked} pass" + (f"; {these}:" if failed else "")
        said = [f"  {one.check}: {one.words}" for one in self.outcomes if one.verdict == "fail"]
        return "\n".join([head, *said])


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why checks weren't asked, each reason once."""
    reasons: dict[str, list[str]] = {}
    for one in outcomes:
        if one.verdict == "not asked":
            reasons.setdefault(one.words, []).append(one.check)
    return [f"  not asked ({why}): {', '.join(names)}" for why, names in reasons.items()]


def outcome(check: Check, bench: Bench) -> Outcome:
    """What came of one check; whatever it raises but an interrupt is its failure."""
    try:
        bench.begin(check)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            check.run(bench)
    except LacksError as lack:
        return Outcome(check.name, "not asked", str(lack))
    except UnmetError as unmet:
        return Outcome(check.name, "fail", str(unmet))
    except Exception as error:
        return Outcome(check.name, "fail", shown(error))
    finally:
        bench.end()
    return Outcome(check.name, "pass")


def report(subject: Subject) -> Report:
    """Run all checks on a backend, without pytest.

    Args:
        subject: a model of it. It is opened for each face, and some checks load it anew.
    """
    with Bench(subject) as bench:
        return Report(tuple(outcome(check, bench) for check in CHECKS.values()))
