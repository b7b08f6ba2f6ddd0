"""The checks as tests: a class to subclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.catalogue import CHECKS
from aiaas_sdk.testing.conformance.checks import Check
from aiaas_sdk.testing.conformance.reporting import Outcome, outcome
from aiaas_sdk.testing.conformance.subject import Subject
from aiaas_sdk.testing.plugin import CONFORMANCE

__all__ = ["Conformance"]


class Conformance:
    """Subclass it in a test module that has a fixture `subject` of the scope "module": each check is a test.

        @pytest.fixture(scope="module")
        def subject() -> Subject:
            return Subject("double:", reference=lambda inputs: {"y": 2 * inputs["x"]})

        class TestDouble(Conformance):
            pass

    A test of a check that the backend lacks something for is skipped with the reason.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def conformance_bench(cls, subject: Subject) -> Iterator[Bench]:
        """Where the checks run."""
        with Bench(subject) as bench:
            yield bench


def _test_of(check: Check) -> Callable[..., None]:
    def test(self: Any, conformance_bench: Bench, request: pytest.FixtureRequest) -> None:
        came = outcome(check, conformance_bench)
        request.node.user_properties.append((CONFORMANCE, _told(request.node, came)))
        if came.verdict == "fail":
            pytest.fail(f"{check.promise}\n{came.words}", pytrace=False)
        if came.verdict == "not asked":
            pytest.skip(came.words)

    test.__name__ = f"test_{check.name}"
    test.__qualname__ = f"Conformance.{test.__name__}"
    test.__doc__ = check.promise
    return test


def _told(item: pytest.Item, came: Outcome) -> tuple[str, str, str, str]:
    return (item.nodeid.rpartition("::")[0], came.check, came.verdict, came.words)


for _check in CHECKS.values():
    setattr(Conformance, f"test_{_check.name}", _test_of(_check))
