"""Attributions as colours: white at 0, red for what speaks for the target, blue for what speaks against it.

The ends and middles are those of ColorBrewer's RdBu (Harrower and Brewer 2003), which colour-blind readers can tell
apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["colours", "css", "ink", "scale"]

_AT = np.array([-1.0, -0.6, -0.25, 0.0, 0.25, 0.6, 1.0])
_COLOURS = np.array(
    [
        (5, 48, 97),
        (67, 147, 195),
        (209, 229, 240),
        (255, 255, 255),
        (253, 219, 199),
        (214, 96, 77),
        (103, 0, 31),
    ],
    np.float64,
)


def scale(values: npt.NDArray[np.floating]) -> float:
    """The size that has the full colour: the largest of few values, of many that above 99.8 %; 1 where all are 0."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or not sizes.max():
        return 1.0
    most = float(np.quantile(sizes, 0.998)) if sizes.size >= 500 else 0.0
    return most or float(sizes.max())


def colours(values: npt.NDArray[np.floating], most: float) -> npt.NDArray[np.float64]:
    """(..., 3), from 0 to 255, for values of which `most` has the full colour; what is no number is white."""
    given = np.nan_to_num(np.clip(values / most, -1, 1))
    return np.stack([np.interp(given, _AT, _COLOURS[:, channel]) for channel in range(3)], axis=-1)


def css(value: float, most: float) -> str:
    red, green, blue = (round(part) for part in colours(np.array(value), most).tolist())
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink(value: float, most: float) -> str:
    """White or black: what can be read on the value's colour (by its luminance, ITU-R BT.601)."""
    red, green, blue = colours(np.array(value), most).tolist()
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#111111"
