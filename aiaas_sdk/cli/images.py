"""Images as rows of an image input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiaas_sdk.errors import ConfigError, InputError
from aiaas_sdk.records.model import TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "files", "rows"]

SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))
_FORMATS = ("PNG", "JPEG")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.float32}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where channels, height and width stand in a row; sizes of -1 are free."""

    channels: int
    height: int
    width: int
    first: bool
    """Channels stand before height and width."""
    flat: bool = False
    """There is no axis for the one channel."""


def files(paths: Sequence[Path]) -> list[Path]:
    """The images that are named, and those in the folders that are, by name."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"the folder {path} has no images", hint=f"Images end in {', '.join(sorted(SUFFIXES))}")
        found += inside
    return found


def rows(paths: Sequence[Path], spec: TensorSpec, *, resize: bool) -> npt.NDArray[Any]:
    """The images as one array of the input `spec`: [-1,C,H,W], [-1,H,W,C] or [-1,H,W].

    Floats are 0 to 1, UINT8 is as stored. An image is turned as its EXIF data say and converted to C channels (1
    grey, 3 RGB, 4 RGBA); one of another size is scaled with `resize`, and else refused.
    """
    layout = _layout(spec)
    if spec.datatype != "UINT8" and spec.datatype not in _FLOATS:
        raise InputError(f"input {spec.name!r} is {spec.datatype}; images are given to UINT8 and float inputs")
    height, width, arrays = layout.height, layout.width, []
    for path in paths:
        pixels = _pixels(path, layout.channels, (height, width) if resize else None)
        if not _fits(pixels.shape, height, width):
            raise InputError(
                f"{path} is {pixels.shape[1]}x{pixels.shape[0]} (width x height); "
                f"{spec.name!r} of shape {list(spec.shape)} wants {_size(width)}x{_size(height)}",
                hint="Give --resize to scale it",
            )
        height, width = pixels.shape[:2]  # a free size is that of the first image
        arrays.append(_arranged(pixels, layout))
    stacked = np.stack(arrays)
    if spec.datatype == "UINT8":
        return stacked
    return np.asarray(stacked / np.float32(255), _FLOATS[spec.datatype])


def _layout(spec: TensorSpec) -> _Layout:
    shape = spec.shape
    if len(shape) == 3:
        return _Layout(1, shape[1], shape[2], first=False, flat=True)
    if len(shape) == 4 and shape[1] in _MODES:
        return _Layout(shape[1], shape[2], shape[3], first=True)
    if len(shape) == 4 and shape[3] in _MODES:
        return _Layout(shape[3], shape[1], shape[2], first=False)
    raise InputError(
        f"input {spec.name!r} of shape {list(shape)} doesn't take images",
        hint="An image input is [-1,C,H,W] or [-1,H,W,C] with 1, 3 or 4 channels, or [-1,H,W]",
    )


def _fits(shape: Sequence[int], height: int, width: int) -> bool:
    return height in (-1, shape[0]) and width in (-1, shape[1])


def _size(size: int) -> str:
    return "any" if size == -1 else str(size)


def _arranged(pixels: npt.NDArray[Any], layout: _Layout) -> npt.NDArray[Any]:
    if layout.flat:
        return pixels[:, :, 0]
    return pixels.transpose(2, 0, 1) if layout.first else pixels


def _pixels(path: Path, channels: int, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """(height, width, channels)."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError:
        raise ConfigError("reading images needs pillow", hint='Install it: pip install "aiaas-sdk[plots]"') from None
    try:
        with PIL.Image.open(path, formats=_FORMATS) as opened:
            image: Image = PIL.ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path} has more than 8 bits a channel", hint="Convert it to 8 bits first")
            image = image.convert(_MODES[channels])
            if size is not None:
                height, width = (wish if wish != -1 else has for wish, has in zip(size, image.size[::-1], strict=True))
                image = image.resize((width, height))
            return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read as an image ({type(error).__name__})") from None
