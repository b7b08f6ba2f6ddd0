"""The tests that docs/manners.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_test_that_holds_a_promise_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / "docs" / "manners.md").read_text("utf-8")))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_each_promise_names_one() -> None:
    page = (ROOT / "docs" / "manners.md").read_text("utf-8")
    tables = re.findall(r"\| promise \| held by \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    assert len(tables) == 3
    assert [row for table in tables for row in table.splitlines() if "`tests/" not in row.rsplit("|", 2)[1]] == []
