"""docs/reference.md documents every public name, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import aiaas_sdk
from aiaas_sdk import errors

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"


def test_every_public_name_is_on_the_page() -> None:
    directives = re.findall(r"^\.\. auto\w+:: aiaas_sdk\.(\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    documented = {*directives} - {"errors", "hookspecs"}
    public = {*aiaas_sdk.__all__} - {*errors.__all__} - {"__version__", "errors"}
    assert documented == public
