"""docs/errors.md has one row, with a cure, for each class of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiaas_sdk import errors

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)`(?: \(also an? `(\w+)`\))? \| (.+?) \| (.+?) \|$", re.MULTILINE)
ROWS = {name: (builtin, when, cure) for name, builtin, when, cure in ROW.findall(PAGE.read_text("utf-8"))}
CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_class_has_a_row_with_a_cure(cls: type[errors.AiaasError]) -> None:
    assert cls.__name__ in ROWS, f"docs/errors.md has no row for {cls.__name__}"
    builtin, when, cure = ROWS[cls.__name__]
    assert len(when) > 10, "the row must say when it is raised"
    assert len(cure) > 10, "the row must say what to do"
    also = next((base.__name__ for base in cls.__bases__ if not issubclass(base, errors.AiaasError)), "")
    assert cls is errors.AiaasError or builtin == also


def test_no_row_is_left_over() -> None:
    attributes = {"address", "row"}
    assert set(ROWS) - attributes == {cls.__name__ for cls in CLASSES}


def test_exported_and_drawn() -> None:
    """Every class stands in `__all__` and in the tree of the module's docstring."""
    names = {cls.__name__ for cls in CLASSES}
    assert set(errors.__all__) == names
    assert names <= set(re.findall(r"\w+", errors.__doc__ or ""))


def test_attributes_are_named() -> None:
    """Each public attribute of an error stands in the page's table of attributes."""
    page = PAGE.read_text("utf-8")
    missing = [name for name in vars(errors.AiaasError("x")) if f"`{name}`" not in page]
    assert not missing
