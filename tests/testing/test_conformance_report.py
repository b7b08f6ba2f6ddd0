"""What the conformance suite says: as a function, and at the end of a run of pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aiaas_sdk.testing.conformance import Report, Subject, report
from aiaas_sdk.testing.conformance.catalogue import CHECKS
from aiaas_sdk.testing.conformance.reporting import Outcome

SUITE = """
import pytest
from aiaas_sdk.testing.conformance import Conformance, Subject

@pytest.fixture(scope="module")
def subject():
    return Subject(
        "echo:?x=FP32[-1,3]",
        reference=lambda inputs: {"x": inputs["x"] * 2},
        exempt={"zero_numbers_are_right": "twice nothing is nothing"},
    )

class TestWrong(Conformance):
    pass
"""


def test_it_counts_and_lets_those_that_fail_speak() -> None:
    passed = [Outcome(f"good_{number}", "pass") for number in range(97)]
    failed = [Outcome(f"bad_{number}", "fail", f"words {number}") for number in range(6)]
    lacking = [Outcome("a", "not asked", "no BF16"), Outcome("b", "not asked", "no BF16")]
    found = Report((*passed, *failed, *lacking))
    lines = str(found).splitlines()
    assert lines[0] == "97 of 103 pass; these 6 say:"
    assert lines[1:7] == [f"  bad_{number}: words {number}" for number in range(6)]
    assert lines[7:] == ["  not asked (no BF16): a, b"]
    assert str(Report((*passed, failed[0]))).startswith("97 of 98 pass; this 1 says:\n")
    assert str(Report(tuple(passed))) == "97 of 97 pass"
    assert (len(found.passed), len(found.failed), found.not_asked) == (97, 6, ("a", "b"))


def test_a_backend_that_cannot_be_loaded_fails_with_the_cause() -> None:
    found = report(Subject("nobody-knows:x"))
    assert not found.passed
    assert "no installed backend serves 'nobody-knows'" in str(found)


def test_each_check_says_what_it_promises() -> None:
    for check in CHECKS.values():
        assert check.promise.endswith("."), check.name
        assert "{" not in check.promise, check.name
        assert f"test_{check.name}".isidentifier()


def test_the_summary_of_pytest_says_it_and_reasons_are_shown(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-k", "numbers_are_right or info_has"]
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "test_suite.py::TestWrong: 6 of 12 pass; these 6 say:" in done.stdout
    assert "  drawn_numbers_are_right: of drawn numbers: x: 30 of 30 elements are wrong; at [0, 0] came" in done.stdout
    assert "exempt: twice nothing is nothing" in done.stdout
    assert "Inputs that are drawn numbers give what the reference gives." in done.stdout
