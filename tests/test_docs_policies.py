"""docs/policies has a page for each policy, whose table has the fields of its record with their defaults."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.policies import DEFAULTS, RECORDS

FOLDER = Path(__file__).parent.parent / "docs" / "policies"
ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text("utf-8")


@pytest.mark.parametrize("name", RECORDS)
def test_the_table_has_each_field_with_its_default(name: str) -> None:
    table = {field: eval(default) for field, default, _ in ROW.findall(page(name))}
    known: dict[str, Any] = {field.name: field.default for field in fields(RECORDS[name])}
    assert MISSING not in known.values()
    assert table == known


def test_the_order_on_the_page_is_the_order_in_the_code() -> None:
    assert re.findall(r"^\d\. \*\*(\w+)\*\*", page("index"), re.MULTILINE) == list(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_says_whether_it_is_on_by_default(name: str) -> None:
    [row] = [line for line in page("index").splitlines() if line.startswith(f"| [{name}]")]
    assert row.split("|")[-2].strip().startswith("on" if name in DEFAULTS else "off")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_each_page_has_its_picture(path: Path) -> None:
    assert f"]({path.stem}.svg)" in path.read_text("utf-8")
    assert path.with_suffix(".svg").read_text("utf-8").startswith("<svg ")
