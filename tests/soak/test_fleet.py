"""An overloaded server gets up again: benchmarks/fleet.py, smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLEET = Path(__file__).parent.parent.parent / "benchmarks" / "fleet.py"
PAID, UNPAID = "with the retry budget", "without it"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of 200 clients that offer three times what the server can do for eight seconds, with and without."""
    written = tmp_path_factory.mktemp("fleet") / "fleet.json"
    command = [sys.executable, FLEET, "--capacity", "80", "--seconds", "2", "8", "8", "--processes", "2"]
    command += ["--cases", PAID, UNPAID, "--json", written]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout[-4000:]
    return {found["case"]: found for found in json.loads(written.read_text())}


@pytest.mark.slow
def test_with_the_budget_an_overload_isnt_made_worse_and_ends_with_its_cause(outcomes: dict[str, Any]) -> None:
    found = outcomes[PAID]
    assert found["amplification"] <= 1.1
    assert found["back"] is not None
    assert found["back"] <= 5


@pytest.mark.slow
def test_without_it_the_retries_keep_the_server_down(outcomes: dict[str, Any]) -> None:
    """Else the test above would show nothing."""
    found = outcomes[UNPAID]
    assert found["amplification"] > 1.5
    assert found["back"] is None
    assert found["amplification_after"] > 1.5
