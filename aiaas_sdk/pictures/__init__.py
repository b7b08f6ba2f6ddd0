"""Pictures of explanations, as .png (by pillow) and as .html.

scenes      what is to be seen: maps, bars, tokens
palette     numbers as colours
png, html   the two ways to show it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiaas_sdk.errors import ConfigError, InputError

if TYPE_CHECKING:
    from aiaas_sdk.records.explanation import Explanation

__all__ = ["check", "draw"]


def check(path: Path, ranks: Collection[int]) -> None:
    """Before there is an explanation: whether it could be drawn there.

    Args:
        path: of the picture.
        ranks: of the inputs, rows included.

    Raises:
        BackendNotInstalledError: pillow isn't installed, and it will be needed.
    """
    from aiaas_sdk.pictures.png import pillow

    maps = bool(ranks) and min(ranks) > 2  # whatever of them is explained, it is a map
    if maps or path.suffix.lower() == ".png":
        pillow()


def draw(explanation: Explanation, path: Path) -> Path:
    """Write a picture; the file's ending says of which kind. Errors as `Explanation.plot`."""
    from aiaas_sdk.pictures import html, png
    from aiaas_sdk.pictures.scenes import scenes

    makers: Mapping[str, Callable[..., bytes]] = {".png": png.page, ".html": html.page}
    make = makers.get(path.suffix.lower())
    if make is None:
        raise InputError(f"{path} is no picture that is known", hint="Give a path that ends in .png or .html")
    data = make(scenes(explanation))
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror or error}") from None
    return path
