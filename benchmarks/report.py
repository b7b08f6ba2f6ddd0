"""What a benchmark is asked, and where its figures and its picture go."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def parser(text: str | None, name: str) -> argparse.ArgumentParser:
    """With the option of where the figures are written: results/`name`.json, unless told otherwise."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where the figures are written")
    return made


def add_picture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--picture", type=Path, help="where the curves are drawn, as SVG")


def written(path: Path, found: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def draw(path: Path | None, picture: Callable[[], str]) -> None:
    """Where a picture was asked for."""
    if path is not None:
        path.write_text(picture())
