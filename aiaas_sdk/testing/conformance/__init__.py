"""The conformance suite: whether a backend keeps what users of `Model` are promised.

    import pytest
    from aiaas_sdk.testing.conformance import Conformance, Subject

    @pytest.fixture(scope="module")
    def subject() -> Subject:
        return Subject("double:", reference=lambda inputs: {"y": 2 * inputs["x"]})

    class TestDouble(Conformance):
        pass

Under pytest each check is a test, and the summary says "97 of 103 pass; these 6 say: ...". `report(subject)` gives
the same without pytest. A check for which the backend lacks something (a verb, a datatype, a reference) is skipped
with the reason.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiaas_sdk.testing.conformance.reporting import Report as Report
    from aiaas_sdk.testing.conformance.reporting import report as report
    from aiaas_sdk.testing.conformance.subject import Subject as Subject
    from aiaas_sdk.testing.conformance.suite import Conformance as Conformance

_HOMES = {"Conformance": "suite", "Report": "reporting", "Subject": "subject", "report": "reporting"}
__all__ = ["Conformance", "Report", "Subject", "report"]


def __getattr__(name: str) -> Any:
    # the suite needs pytest, the report doesn't
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
